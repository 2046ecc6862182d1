#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "checkpoint/file_system.hpp"
#include "lockstep/checkpoint/safetensors.hpp"

namespace lockstep::checkpoint {

inline constexpr std::uint64_t max_safetensors_header_bytes = 100'000'000;  // as in its own library
inline constexpr const char* metadata_key = "__metadata__";

/// read_safetensors(), of which `progress` is told how many bytes of the file are done.
SafetensorsFile read_safetensors(const std::string& path,
                                 const std::function<void(std::uint64_t bytes_done)>& progress);

/// write_safetensors() in another file system.
void write_safetensors(const std::string& path, const StateDict& state,
                       const std::map<std::string, std::string>& metadata, FileSystem& files);

}  // namespace lockstep::checkpoint
