#pragma once

#include <string>

#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

namespace lockstep::data {

/// The array in an IDX file, the format of MNIST and its kin (http://yann.lecun.com/exdb/mnist/),
/// plain or compressed by gzip. Unsigned bytes become u8, short and int become i64, float f32,
/// double f64.
///
/// Throws DataError, which names the file, where it is missing, damaged or not IDX, has another
/// element type or more than Shape::max_rank axes, or holds fewer or more bytes than its header
/// says. Memory for the array is taken only once the file is known to fill it.
Tensor read_idx(const std::string& path);

}  // namespace lockstep::data

#pragma GCC visibility pop
