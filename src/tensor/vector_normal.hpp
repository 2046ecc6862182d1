#pragma once

#include <cstddef>
#include <iterator>
#include <limits>
#include <numbers>

#include "tensor/vector_math.hpp"

// The normal distribution, of vectors as in tensor/vector_math.hpp, and with its errors.
namespace lockstep::kernels {

namespace detail {

/// (x + 2) · e^(x²/2) · Φ(-x) of the normal distribution, 0 ≤ x ≤ `end`, as a polynomial in u = a - 2 (a + 1) / (x + 2) with
/// a = (end + 4) / end, which goes from -1 to 1: the Chebyshev series, as Shepherd and Laframboise have it in "Chebyshev
/// approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞", Mathematics of Computation 36 (1981), for another factor.
template <class T>
struct Tail;

/// As exact as a float can be.
template <>
struct Tail<float> {
  static constexpr double end = 16, last = (end + 4) / end, factor = 2 * (last + 1);
  static constexpr double coefficients[] = {
      0x1.6b484aa8d4f62p-1,  -0x1.323da9532d8d3p-2, 0x1.ae0ea4b8aa948p-7,   0x1.a0062a6e95fddp-6,
      0x1.d73540ac8b334p-10, -0x1.8025b893451dcp-9, -0x1.2c5246f6e323cp-10, 0x1.283c9938893d3p-14,
      0x1.03c15840cfd0cp-12, 0x1.7098c720a4e5p-14,  -0x1.653fda7987396p-16, -0x1.2ca6536b4e124p-16};
};

template <>
struct Tail<double> {
  static constexpr double end = 64, last = (end + 4) / end, factor = 2 * (last + 1);
  static constexpr double coefficients[] = {
      0x1.5d6d7e0d4626p-1,    -0x1.4ab50655ed4a5p-2,  0x1.883786bd6995ap-6,
      0x1.123e7d556ca64p-5,   0x1.e3b8ca398b367p-12,  -0x1.652914765704ep-8,
      -0x1.c904aded0bc96p-10, 0x1.f447525320aa8p-12,  0x1.3a306a8add896p-11,
      0x1.76f49f3d0155bp-13,  -0x1.d2c5429449334p-15, -0x1.4cd31d2885f1fp-14,
      -0x1.179488e6d8a95p-15, 0x1.27fae81a524dp-20,   0x1.63194d1e4234ap-17,
      0x1.de764cd503af1p-18,  0x1.f4fed72e8129fp-20,  -0x1.da8a6f0774eb1p-21,
      -0x1.41a700f409cdcp-20, -0x1.52235b542e242p-21, -0x1.0e651fc349127p-22,
      -0x1.e87f25b88a6fep-26, 0x1.d6c027d23ab3p-23,   0x1.eac936b70552ap-23,
      0x1.8d7b054a0857dp-28,  -0x1.910f80c358f16p-24, -0x1.f3a9f67d6c6e9p-26,
      0x1.b94950787fcb1p-27,  0x1.94b7a556ba93fp-28};
  /// What the first two are more.
  static constexpr double rest[] = {-0x1.f9ccf27cfa605p-55, 0x1.12c9a47c97aa0p-59};
};

/// That polynomial without its terms below u^first, divided by that.
template <class Tail>
Vector<double> horner(Vector<double> u, std::size_t first) {
  Vector<double> series{};
  for (std::size_t i = std::size(Tail::coefficients); i-- > first;) {
    series = Tail::coefficients[i] + series * u;
  }
  return series;
}

constexpr double density_at_0 = std::numbers::inv_sqrtpi / std::numbers::sqrt2;

}  // namespace detail

/// Beyond which Φ(-x) and φ(x) are 0 as T.
template <class T>
constexpr double normal_limit = sizeof(T) == 8 ? 40 : 15;

/// Φ(x), φ(x) and x · Φ(x) of the normal distribution, for results of type T.
struct Normal {
  Vector<double> distribution, density, gelu;
};
template <class T>
Normal normal(Vector<double> x);

template <>
inline Normal normal<float>(Vector<double> x) {
  using Tail = detail::Tail<float>;
  const Vector<double> size =
      detail::absolute<double>(detail::within<double>(x, normal_limit<float>));
  const detail::Reduced<double> reduced(size * size * -0.5);
  const Vector<double> power = (1 + detail::exp_minus_one<double, float>(reduced.r).high) *
                               detail::power_of_two<double>(reduced.k);
  const Vector<double> inverse = 1 / (size + 2);
  const Vector<double> series = detail::horner<Tail>(Tail::last - Tail::factor * inverse, 0);
  const Vector<double> tail =
      detail::flushed<double>(series * inverse * power, std::numeric_limits<float>::min());
  const Vector<double> distribution = x < 0 ? tail : 1 - tail;
  return {distribution, power * detail::density_at_0,
          detail::at_least<double>(x, -normal_limit<float>) * distribution};
}

/// All of it as sums of two numbers, but for higher terms of the series.
template <>
inline Normal normal<double>(Vector<double> x) {
  using namespace detail;
  using Tail = Tail<double>;
  constexpr double limit = normal_limit<double>;
  const Vector<double> inside = within<double>(x, limit), size = absolute<double>(inside);
  const Vector<double> one = 1 + Vector<double>{};

  // e^(-x²/2), of the square as two numbers, the first of which is exact.
  const Vector<double> head = head_of(size);
  Reduced<double> reduced(head * head * -0.5);
  const Split<double> r = add<double>(reduced.r, (size - head) * (size + head) * -0.5);
  const Split<double> grown = exp_minus_one<double>(r.high);
  const Split<double> mantissa = add_smaller<double>(one, grown.high);
  const Vector<double> half = round<double>(reduced.k * 0.5);
  const Vector<double> first = power_of_two<double>(half),
                       second = power_of_two<double>(reduced.k - half);
  const Split<double> power{mantissa.high * first * second,
                            (mantissa.low + (grown.low + r.low * mantissa.high)) * first * second};

  // 1 / (x + 2)
  const Split<double> sum = add<double>(size, 2 + Vector<double>{});
  Split<double> inverse{1 / sum.high, {}};
  const Split<double> back = product(sum.high, inverse.high);
  inverse.low = ((1 - back.high) - back.low - sum.low * inverse.high) * inverse.high;

  // `last` and `factor` have few digits: the first difference is exact.
  const Vector<double> head_of_inverse = head_of(inverse.high);
  const Split<double> u =
      add_smaller<double>(Tail::last - Tail::factor * head_of_inverse,
                          -Tail::factor * ((inverse.high - head_of_inverse) + inverse.low));
  const Split<double> square = product(u.high, horner<Tail>(u.high, 2));
  Split<double> slope = add_smaller<double>(Tail::coefficients[1] + Vector<double>{}, square.high);
  slope.low += square.low + Tail::rest[1];
  const Split<double> linear = product(u, slope);
  Split<double> series = add_smaller<double>(Tail::coefficients[0] + Vector<double>{}, linear.high);
  series.low += linear.low + Tail::rest[0];

  Split<double> tail = product(product(series, inverse), power);
  const auto nothing = tail.high < std::numeric_limits<double>::min();
  tail = {nothing ? Vector<double>{} : tail.high, nothing ? Vector<double>{} : tail.low};
  const Split<double> above = add_smaller<double>(one, -tail.high);
  const Vector<double> high = x < 0 ? tail.high : above.high;
  const Vector<double> low = x < 0 ? tail.low : above.low - tail.low;
  const Split<double> gelu = product(inside, high);
  return {high + low, power.high * density_at_0,
          x > limit ? x : gelu.high + (gelu.low + inside * low)};
}

}  // namespace lockstep::kernels
