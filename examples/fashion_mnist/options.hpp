#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

struct Options {
  std::filesystem::path data = "/usr/share/datasets/fashion-mnist";
  std::filesystem::path out = "run/fashion_mnist";
  std::int64_t epochs = 10;
  std::int64_t batch = 64;
  std::string optimizer = "adam";
  std::optional<double> lr;
  double momentum = 0.9;
  std::uint64_t seed = 1;
  bool resume = false;
};

/// What the command line asks for. Where it asks for help, or cannot be understood, `exit_status`
/// is set, and rank 0 has printed why.
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};

CommandLine parse_command_line(int argc, char** argv, int rank);
