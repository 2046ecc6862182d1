#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

struct Options {
  std::filesystem::path out = "run/inverse_diffusion";
  bool resume = false;
  bool check_gradient = false;

  std::int64_t cells = 40;  ///< of a row or column
  std::int64_t experiments = 12;
  double noise = 0.01;
  std::uint64_t seed = 1;

  std::string optimizer = "lbfgs";
  std::optional<std::int64_t> steps;
  std::optional<double> lr;
  double regularisation = 0.1;
};

/// What the command line asks for. Where it asks for help, or cannot be understood, `exit_status`
/// is set, and rank 0 has printed why.
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};

CommandLine parse_command_line(int argc, char** argv, int rank);
