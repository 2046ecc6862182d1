#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

struct Options {
  std::filesystem::path out = "run/heat_surrogate";
  bool resume = false;
  std::optional<std::int64_t> stop_after;  ///< time steps of all

  std::int64_t cells = 96;  ///< along each axis
  std::int64_t steps = 400;
  std::int64_t compare_steps = 200;

  double budget = 0.02;                     ///< seconds of training in each time step, or
  std::optional<std::int64_t> train_steps;  ///< so many steps
  std::int64_t batch = 512;
  std::int64_t width = 32;
  std::int64_t capacity = 100'000;
  double lr = 5e-3;
  std::uint64_t seed = 1;
};

/// What the command line asks for. Where it asks for help, or cannot be understood, `exit_status`
/// is set, and rank 0 has printed why.
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};

CommandLine parse_command_line(int argc, char** argv, int rank);
