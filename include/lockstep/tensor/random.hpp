#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// A key of a counter-based generator: number i of a key is a pure function of (key, i), so it does
/// not depend on what was drawn before, on which rank draws it, or on how a range is cut. Keys are
/// derived from a seed by folding in names and numbers, one for each use.
///
/// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
class RandomKey {
 public:
  explicit RandomKey(std::uint64_t seed = 0) noexcept : key_(seed) {}

  /// The key for a named or numbered use below this one.
  RandomKey fold(std::string_view name) const noexcept;
  RandomKey fold(std::uint64_t number) const noexcept;

  /// 64 random bits.
  std::uint64_t bits(std::uint64_t index) const noexcept;
  /// Those of as many indices from `first` on as there is room for, which takes a fraction of the time.
  void bits(std::uint64_t first, std::span<std::uint64_t> numbers) const noexcept;
  /// A number in [0, 1), a multiple of 2^-53: the leading bits of bits(index).
  double uniform(std::uint64_t index) const noexcept;
  /// A number in [0, bound), for bound > 0; each comes up equally often to within bound / 2^64.
  std::uint64_t below(std::uint64_t bound, std::uint64_t index) const noexcept;

  friend bool operator==(const RandomKey&, const RandomKey&) = default;

 private:
  std::uint64_t key_;
};

/// The generator itself: four words from a counter of four words and a key of two.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) noexcept;

/// Element i becomes low + (high - low) · u with u the key's number i; f32 and f64.
void fill_uniform(Tensor& tensor, RandomKey key, double low, double high);
/// Normally distributed elements, by the Box-Muller transform; f32 and f64.
void fill_normal(Tensor& tensor, RandomKey key, double mean, double stddev);

}  // namespace lockstep

#pragma GCC visibility pop
