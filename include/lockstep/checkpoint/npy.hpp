#pragma once

#include <string>

#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

// Files in the NPY format of NumPy, each of one tensor. None of it is collective.
namespace lockstep::checkpoint {

/// Reads an array of '<f4', '<f8', '<i8' or '|u1' in C order, as numpy.save writes it in version 1.0
/// or 2.0 of the format. CheckpointError, with the path, what was expected and what was found, for
/// anything else.
Tensor read_npy(const std::string& path);

/// Writes the bytes that numpy.save writes, with the guarantees of write_file().
void write_npy(const std::string& path, const Tensor& tensor);

}  // namespace lockstep::checkpoint

#pragma GCC visibility pop
