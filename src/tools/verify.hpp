#pragma once

#include <filesystem>
#include <vector>

namespace lockstep::tools {

/// Reads checkpoints and verifies all of their checksums. Prints a line for each: of those that are
/// good to stdout, of others what is wrong to stderr. False where there are such.
bool verify(const std::vector<std::filesystem::path>& files);

}  // namespace lockstep::tools
