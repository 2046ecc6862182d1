#include "lockstep/tensor/shape.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "lockstep/core/error.hpp"

namespace lockstep {

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) : rank_(extents.size()) {
  if (extents.size() > max_rank) {
    throw ShapeError(
        fmt::format("a shape has at most {} extents, found {}", max_rank, extents.size()));
  }
  constexpr std::int64_t limit = std::int64_t{1} << 62;
  std::int64_t size = 1;
  for (const std::int64_t extent : extents) {
    if (extent < 0) {
      throw ShapeError(
          fmt::format("negative extent {} in shape ({})", extent, fmt::join(extents, ", ")));
    }
    if (extent > 0 && size > limit / extent) {
      throw ShapeError(fmt::format("shape ({}) has too many elements", fmt::join(extents, ", ")));
    }
    if (extent > 0) size *= extent;
  }
  std::copy(extents.begin(), extents.end(), extents_.begin());
}

std::int64_t Shape::size() const noexcept {
  std::int64_t size = 1;
  for (const std::int64_t extent : *this) size *= extent;
  return size;
}

std::string to_string(const Shape& shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

}  // namespace lockstep
