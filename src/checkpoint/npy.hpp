#pragma once

#include "checkpoint/file_system.hpp"
#include "lockstep/checkpoint/npy.hpp"

namespace lockstep::checkpoint {

/// write_npy() in another file system.
void write_npy(const std::string& path, const Tensor& tensor, FileSystem& files);

}  // namespace lockstep::checkpoint
