#pragma once

#include <cstdint>

namespace lockstep::checkpoint {

inline constexpr std::uint64_t max_safetensors_header_bytes = 100'000'000;  // as in its own library
inline constexpr const char* metadata_key = "__metadata__";

}  // namespace lockstep::checkpoint
