#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "lockstep/tensor/random.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

template <class T>
class Kernels : public ::testing::Test {
 protected:
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  static constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  static constexpr double epsilon = std::numeric_limits<T>::epsilon();
};

/// From U(low, high).
template <class T>
std::vector<T> draw(std::int64_t n, std::uint64_t seed, double low = -1, double high = 1) {
  std::vector<T> numbers(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = static_cast<T>(low + (high - low) * RandomKey(seed).uniform(i));
  }
  return numbers;
}

template <class T>
bool same_bits(const T* a, const T* b, std::size_t n) {
  return n == 0 || std::memcmp(a, b, n * sizeof(T)) == 0;
}

/// A copy of numbers that starts `offset` elements after a 64-byte boundary.
template <class T>
class Shifted {
 public:
  Shifted(const std::vector<T>& numbers, std::size_t offset)
      : memory_(Tensor::empty({static_cast<std::int64_t>(numbers.size() + offset)}, dtype_of<T>)),
        begin_(memory_.data<T>() + offset) {
    std::copy(numbers.begin(), numbers.end(), begin_);
  }
  T* data() { return begin_; }

 private:
  Tensor memory_;
  T* begin_;
};

}  // namespace lockstep::testing
