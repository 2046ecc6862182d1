#include "tools/tensor_difference.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace lockstep::tools {
namespace {

template <class T>
double greatest_magnitude(std::span<const T> numbers) {
  double greatest = 0;
  for (const T value : numbers) {
    const double magnitude = std::abs(static_cast<double>(value));
    if (std::isfinite(magnitude)) greatest = std::max(greatest, magnitude);
  }
  return greatest;
}

template <class T>
bool equal(T a, T b, std::optional<double> tolerance, double magnitude) {
  if (std::memcmp(&a, &b, sizeof a) == 0) return true;
  if constexpr (std::is_floating_point_v<T>) {
    const double x = a, y = b;
    return tolerance && std::isfinite(x) && std::isfinite(y) &&
           std::abs(x - y) <= *tolerance * magnitude;
  }
  return false;
}

// |a - b|; of integers without overflow.
template <class T>
auto distance(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::abs(static_cast<double>(a) - static_cast<double>(b));
  } else {
    return a > b ? static_cast<std::uint64_t>(a) - static_cast<std::uint64_t>(b)
                 : static_cast<std::uint64_t>(b) - static_cast<std::uint64_t>(a);
  }
}

Json index_of(std::size_t position, const Shape& shape) {
  std::vector<std::size_t> index;
  for (std::size_t axis = shape.rank(); axis-- > 0;) {
    const auto extent = static_cast<std::size_t>(shape[axis]);
    index.push_back(position % extent);
    position /= extent;
  }
  std::reverse(index.begin(), index.end());
  return index;
}

template <class T>
Json json_of(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return number(static_cast<double>(value));
  } else {
    return value;
  }
}

template <class T>
class Comparison {
 public:
  Comparison(const Tensor& a, const Tensor& b)
      : a_(a.span<T>()), b_(b.span<T>()), shape_(a.shape()) {}

  Json run(std::optional<double> tolerance) {
    const double magnitude =
        tolerance ? std::max(greatest_magnitude(a_), greatest_magnitude(b_)) : 0;
    for (std::size_t i = 0; i < a_.size(); ++i) {
      if (!equal(a_[i], b_[i], tolerance, magnitude)) count(i);
    }
    if (differing_ == 0) return nullptr;
    return {{"numbers", a_.size()},
            {"differing", differing_},
            {"not_finite", not_finite_},
            {"first", at(first_)},
            {"largest_absolute", finite() ? largest(absolute_, json_of(distance_)) : nullptr},
            {"largest_relative", finite() ? largest(relative_, number(ratio_)) : nullptr}};
  }

 private:
  void count(std::size_t i) {
    if (differing_++ == 0) first_ = i;
    const double a = static_cast<double>(a_[i]), b = static_cast<double>(b_[i]);
    if (!std::isfinite(a) || !std::isfinite(b)) {
      ++not_finite_;
      return;
    }
    const auto distance = tools::distance(a_[i], b_[i]);
    const double larger = std::max(std::abs(a), std::abs(b));
    const double ratio = larger == 0 ? 0 : static_cast<double>(distance) / larger;
    const bool first = differing_ - not_finite_ == 1;
    if (first || distance > distance_) {
      distance_ = distance;
      absolute_ = i;
    }
    if (first || ratio > ratio_) {
      ratio_ = ratio;
      relative_ = i;
    }
  }

  bool finite() const { return differing_ > not_finite_; }
  Json at(std::size_t i) const {
    return {{"index", index_of(i, shape_)}, {"a", json_of(a_[i])}, {"b", json_of(b_[i])}};
  }
  Json largest(std::size_t i, const Json& difference) const {
    Json result{{"difference", difference}};
    result.update(at(i));
    return result;
  }

  std::span<const T> a_, b_;
  Shape shape_;
  std::uint64_t differing_ = 0, not_finite_ = 0;
  std::size_t first_ = 0, absolute_ = 0, relative_ = 0;
  decltype(distance(T{}, T{})) distance_ = 0;
  double ratio_ = 0;
};

}  // namespace

Json tensor_difference(const Tensor& a, const Tensor& b, std::optional<double> tolerance) {
  switch (a.dtype()) {
    case DType::f32:
      return Comparison<float>(a, b).run(tolerance);
    case DType::f64:
      return Comparison<double>(a, b).run(tolerance);
    case DType::i64:
      return Comparison<std::int64_t>(a, b).run(tolerance);
    case DType::u8:
      return Comparison<std::uint8_t>(a, b).run(tolerance);
  }
  return nullptr;
}

}  // namespace lockstep::tools
