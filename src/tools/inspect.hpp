#pragma once

#include <filesystem>

namespace lockstep::tools {

struct InspectOptions {
  std::filesystem::path file;
  bool values = false;  ///< least, greatest, mean of each tensor
  bool json = false;
};

/// Prints what is in a checkpoint. CheckpointError where it cannot be read or is damaged.
void inspect(const InspectOptions& options);

}  // namespace lockstep::tools
