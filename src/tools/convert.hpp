#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lockstep::tools {

struct ConvertOptions {
  std::filesystem::path in, out;
  /// The items of a checkpoint that are converted, all where empty; of a safetensors file that becomes
  /// a checkpoint, one: what the model is called.
  std::vector<std::string> items;
  /// The tensor of an NPY file, as inspect shows it.
  std::optional<std::string> tensor;
  bool drop = false;   ///< whether what `out` has no place for is left out
  bool force = false;  ///< whether files that exist are replaced
};

/// Converts between checkpoints, safetensors files and NPY files, and prints what it has written.
/// OptionError for arguments that do not go together; CheckpointError where `in` cannot be used or
/// `out` cannot be written, exists, or has no place for what is in `in`; NameError for an item or
/// tensor that is not there, and for names that `out` cannot have.
void convert(const ConvertOptions& options);

}  // namespace lockstep::tools
