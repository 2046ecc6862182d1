#pragma once

#include <cstdint>
#include <limits>
#include <numbers>

// Elementary functions for the numeric kernels, of as many numbers at a time as a vector of the processor has. There are
// no fused multiply-adds, so that a number has the same bits in a vector of any length. Errors, to which
// tests/tensor/elementwise_test.cpp holds them: 2 ulp, 3 of softplus.
namespace lockstep::kernels {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T>
struct Vectors;

template <>
struct Vectors<float> {
  typedef float Type __attribute__((vector_size(vector_bytes)));
  typedef std::int32_t Bits __attribute__((vector_size(vector_bytes)));  // and truth values
  static constexpr int digits = 23, bias = 127;
  static constexpr float magic = 0x1.8p23F;  // whose last bit counts ones
  static constexpr float ln2_high = 0x1.62e4p-1F, ln2_low = 0x1.7f7d1cp-20F;
  static constexpr float exp_limit = 104,
                         logistic_limit = 88;  // beyond which results are 0, 1 or infinite
};

template <>
struct Vectors<double> {
  typedef double Type __attribute__((vector_size(vector_bytes)));
  typedef std::int64_t Bits __attribute__((vector_size(vector_bytes)));
  static constexpr int digits = 52, bias = 1023;
  static constexpr double magic = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double exp_limit = 746, logistic_limit = 709;
};

template <class T>
using Vector = typename Vectors<T>::Type;

/// How many numbers a vector has.
template <class T>
constexpr int width = vector_bytes / static_cast<int>(sizeof(T));

namespace detail {

template <class T>
using Bits = typename Vectors<T>::Bits;

template <class T>
Vector<T> round(Vector<T> x) {
  return (x + Vectors<T>::magic) - Vectors<T>::magic;
}

/// 2^k of integral k that a normal number can be.
template <class T>
Vector<T> power_of_two(Vector<T> k) {
  // The exponent of the result is in the last bits of this sum.
  const Vector<T> sum = k + (Vectors<T>::magic + Vectors<T>::bias);
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Bits<T>>(sum) << Vectors<T>::digits);
}

template <class T>
Bits<T> sign_bit() {
  return reinterpret_cast<Bits<T>>(-Vector<T>{});
}
template <class T>
Vector<T> absolute(Vector<T> x) {
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Bits<T>>(x) & ~sign_bit<T>());
}
template <class T>
Vector<T> with_sign(Vector<T> x, Vector<T> sign) {
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Bits<T>>(x) |
                                     (reinterpret_cast<Bits<T>>(sign) & sign_bit<T>()));
}

/// Without the last half of its digits, so that its square is exact.
inline Vector<double> head_of(Vector<double> x) {
  return reinterpret_cast<Vector<double>>(reinterpret_cast<Bits<double>>(x) &
                                          -(std::int64_t{1} << 27));
}

/// NaN stays NaN.
template <class T>
Vector<T> at_least(Vector<T> x, T limit) {
  return x < limit ? limit + Vector<T>{} : x;
}

/// NaN stays NaN.
template <class T>
Vector<T> within(Vector<T> x, T limit) {
  return at_least<T>(x > limit ? limit + Vector<T>{} : x, -limit);
}

/// What is smaller than any normal number becomes 0.
template <class T>
Vector<T> flushed(Vector<T> x, T smallest = std::numeric_limits<T>::min()) {
  return x < smallest ? Vector<T>{} : x;
}

/// x = k · ln 2 + r with |r| ≤ ln 2 / 2, by Cody and Waite, "Software manual for the elementary functions", 1980.
template <class T>
struct Reduced {
  Vector<T> k, r;

  explicit Reduced(Vector<T> x) {
    constexpr T inverse = static_cast<T>(0x1.71547652b82fep+0);
    k = round<T>(x * inverse);
    r = (x - k * Vectors<T>::ln2_high) - k * Vectors<T>::ln2_low;
  }
};

/// A sum of two numbers, of which `low` is what rounding has taken from `high`, or about that.
template <class T>
struct Split {
  Vector<T> high, low;
};

/// a + b, exactly. Knuth, "The art of computer programming" 2, theorem 4.2.2.B.
template <class T>
Split<T> add(Vector<T> a, Vector<T> b) {
  const Vector<T> sum = a + b, of_b = sum - a;
  return {sum, (a - (sum - of_b)) + (b - of_b)};
}

/// a · b, exactly but for the last digit of the low number. Dekker, "A floating-point technique for extending the available
/// precision", Numerische Mathematik 18 (1971).
inline Split<double> product(Vector<double> a, Vector<double> b) {
  const Vector<double> high = a * b, head_a = head_of(a), head_b = head_of(b);
  const Vector<double> rest_a = a - head_a, rest_b = b - head_b;
  return {high, ((head_a * head_b - high) + head_a * rest_b + rest_a * head_b) + rest_a * rest_b};
}
inline Split<double> product(const Split<double>& a, const Split<double>& b) {
  const Split<double> of_high = product(a.high, b.high);
  return {of_high.high, of_high.low + (a.high * b.low + a.low * b.high)};
}

/// a + b of |a| ≥ |b|, exactly. Dekker.
template <class T>
Split<T> add_smaller(Vector<T> a, Vector<T> b) {
  const Vector<T> sum = a + b;
  return {sum, b - (sum - a)};
}

/// e^r - 1 by its Taylor polynomial, of a degree whose error is far below what `Result` resolves.
template <class T, class Result = T>
Split<T> exp_minus_one(Vector<T> r) {
  const auto over = [](double factorial) { return static_cast<T>(1 / factorial); };
  Vector<T> q{};
  if constexpr (sizeof(Result) == 8) {
    q = over(479001600) + r * over(6227020800);
    q = over(39916800) + r * q;
    q = over(3628800) + r * q;
    q = over(362880) + r * q;
    q = over(40320) + r * q;
  }
  q = over(5040) + r * q;
  q = over(720) + r * q;
  q = over(120) + r * q;
  q = over(24) + r * q;
  q = over(6) + r * q;
  q = over(2) + r * q;
  const Vector<T> rest = r * r * q, sum = r + rest;
  return {sum, (r - sum) + rest};
}

/// e^x; 0 where that is denormal.
template <class T>
Vector<T> exponential(const Reduced<T>& x) {
  // The largest power alone is no number.
  const Vector<T> half = round<T>(x.k * T{0.5});
  return flushed<T>((1 + exp_minus_one<T>(x.r).high) * power_of_two<T>(half) *
                    power_of_two<T>(x.k - half));
}

}  // namespace detail

/// e^x; 0 where that is denormal.
template <class T>
Vector<T> exponential(Vector<T> x) {
  return detail::exponential<T>(detail::Reduced<T>(detail::within<T>(x, Vectors<T>::exp_limit)));
}

/// e^x - 1 of x ≤ 0.
template <class T>
Vector<T> exponential_minus_one(Vector<T> x) {
  const detail::Reduced<T> reduced(detail::within<T>(x, Vectors<T>::logistic_limit));
  const Vector<T> power = detail::power_of_two<T>(reduced.k);
  const detail::Split<T> grown = detail::exp_minus_one<T>(reduced.r);
  return (power - 1) + (grown.high * power + grown.low * power);
}

/// ln(1 + e^x), as 2 artanh(e^-|x| / (2 + e^-|x|)) by its Taylor series, and x where that is positive.
template <class T>
Vector<T> softplus(Vector<T> x) {
  const Vector<T> power = exponential<T>(-detail::absolute<T>(x));
  const Vector<T> ratio = power / (2 + power), square = ratio * ratio;
  constexpr int terms = sizeof(T) == 8 ? 16 : 7;
  Vector<T> series = Vector<T>{} + T{1} / (2 * terms + 1);
  for (int term = terms - 1; term > 0; --term) {
    series = T{1} / static_cast<T>(2 * term + 1) + square * series;
  }
  return (x < 0 ? Vector<T>{} : x) + 2 * (ratio + ratio * (square * series));
}

/// tanh x = (e^2x - 1) / (e^2x + 1)
template <class T>
Vector<T> hyperbolic_tangent(Vector<T> x) {
  const detail::Reduced<T> reduced(2 * detail::absolute<T>(detail::within<T>(x, 22)));
  const Vector<T> power = detail::power_of_two<T>(reduced.k);
  const detail::Split<T> grown = detail::exp_minus_one<T>(reduced.r);
  const detail::Split<T> above = detail::add<T>(power - 1, grown.high * power);
  const detail::Split<T> below = detail::add<T>(above.high, 2 + Vector<T>{});
  const Vector<T> rest = above.low + grown.low * power, ratio = above.high / below.high;
  return detail::with_sign<T>(ratio + (rest - ratio * (below.low + rest)) / below.high, x);
}

/// 1 / (1 + e^-x); 0 where that is denormal.
template <class T>
Vector<T> logistic(Vector<T> x) {
  const detail::Reduced<T> reduced(-detail::within<T>(x, Vectors<T>::logistic_limit));
  const Vector<T> power = detail::power_of_two<T>(reduced.k);
  const detail::Split<T> grown = detail::exp_minus_one<T>(reduced.r);
  const detail::Split<T> sum = detail::add<T>(1 + Vector<T>{}, power);
  const detail::Split<T> whole = detail::add<T>(sum.high, power * grown.high);
  const Vector<T> share = 1 / whole.high;
  return detail::flushed<T>(share - share * ((whole.low + sum.low + power * grown.low) * share));
}

/// ln x, as k · ln 2 + 2 artanh((m - 1) / (m + 1)) by its Taylor series, with x = m · 2^k and √½ ≤ m < √2.
template <class T>
Vector<T> natural_logarithm(Vector<T> x) {
  using Bits = detail::Bits<T>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  // So that there are no denormal numbers.
  constexpr int shift = Vectors<T>::digits + 1;
  constexpr T shifted = sizeof(T) == 8 ? 0x1p53 : 0x1p24;
  const Bits small = x < std::numeric_limits<T>::min();
  const Bits bits = reinterpret_cast<Bits>(small ? x * shifted : x);
  const Vector<T> least = std::numbers::sqrt2_v<T> / 2 + Vector<T>{};
  const Bits exponent = (bits - reinterpret_cast<Bits>(least)) >> Vectors<T>::digits;
  const Vector<T> m = reinterpret_cast<Vector<T>>(bits - (exponent << Vectors<T>::digits));
  const Vector<T> k = __builtin_convertvector(small ? exponent - shift : exponent, Vector<T>);

  const Vector<T> ratio = (m - 1) / (m + 1), square = ratio * ratio;
  constexpr int terms = sizeof(T) == 8 ? 10 : 4;
  Vector<T> series = Vector<T>{} + T{1} / (2 * terms + 1);
  for (int term = terms - 1; term > 0; --term) {
    series = T{1} / static_cast<T>(2 * term + 1) + square * series;
  }
  const Vector<T> rest = 2 * ratio * (square * series);
  const Vector<T> result =
      k * Vectors<T>::ln2_high + (2 * ratio + (rest + k * Vectors<T>::ln2_low));
  const Vector<T> special = x > 0    ? x
                            : x < 0  ? Vector<T>{} * std::numeric_limits<T>::quiet_NaN()
                            : x == 0 ? -infinity + Vector<T>{}
                                     : x;
  return x > 0 && x < infinity ? result : special;
}

}  // namespace lockstep::kernels
