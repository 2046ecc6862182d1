#pragma once

#include <filesystem>
#include <optional>

namespace lockstep::tools {

struct DiffOptions {
  std::filesystem::path a, b;
  /// That of tensor_difference(); a double is a tensor of one number.
  std::optional<double> tolerance;
  bool json = false;
};

/// Prints how two checkpoints differ. True where they are equal. OptionError for a tolerance that is
/// negative or not finite; CheckpointError where a file cannot be read or is damaged.
bool diff(const DiffOptions& options);

}  // namespace lockstep::tools
