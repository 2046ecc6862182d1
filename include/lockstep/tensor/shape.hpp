#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#pragma GCC visibility push(default)

namespace lockstep {

/// The extents of a tensor, outermost first; no extents at all is the shape of a scalar.
class Shape {
 public:
  static constexpr std::size_t max_rank = 8;

  Shape() = default;
  /// Throws ShapeError for more than max_rank extents, a negative one, or more than 2^62 elements.
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  std::size_t rank() const noexcept { return rank_; }
  std::int64_t operator[](std::size_t axis) const { return extents_[axis]; }
  /// Product of the extents; 1 for a scalar.
  std::int64_t size() const noexcept;

  const std::int64_t* begin() const noexcept { return extents_.data(); }
  const std::int64_t* end() const noexcept { return extents_.data() + rank_; }

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, max_rank> extents_{};
  std::size_t rank_ = 0;
};

/// "(3, 2)"; "()" for a scalar.
std::string to_string(const Shape& shape);

}  // namespace lockstep

#pragma GCC visibility pop
