#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lockstep::train {

/// The last system call's failure as an Error: "<path>: cannot <what>: <reason>".
[[noreturn]] void throw_system_error(const std::filesystem::path& path, const char* what);

/// The bytes of a file.
std::string read_file(const std::filesystem::path& path);

/// Writes all bytes to an open file; false, with errno, where that fails.
bool write_all(int descriptor, std::string_view bytes);

/// Makes these bytes the contents of a file, through a temporary file beside it: whatever happens,
/// the file has its old contents or all of the new ones.
void replace_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace lockstep::train
