#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numbers>

// Elementary functions for the numeric kernels, of as many numbers at a time as a vector of the processor has. There are
// no fused multiply-adds, so that a number has the same bits in a vector of any length. Errors, to which
// tests/tensor/elementwise_test.cpp holds them: 2 ulp, 3 of softplus, and 7 of gelu for a double.
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

namespace detail {

/// (x + 2) · e^(x²/2) · Φ(-x) of the normal distribution, 0 ≤ x ≤ `end`, as a polynomial in u = a - 2 (a + 1) / (x + 2) with
/// a = (end + 4) / end, which goes from -1 to 1: the Chebyshev series, as Shepherd and Laframboise have it in "Chebyshev
/// approximation of (1 + 2x) exp(x²) erfc x in 0 ≤ x < ∞", Mathematics of Computation 36 (1981), for another factor.
template <class T>
struct Tail;

/// As exact as a float can be.
template <>
struct Tail<float> {
  static constexpr double end = 16;
  static constexpr double coefficients[] = {
      0x1.6b484aa8d4f62p-1,  -0x1.323da9532d8d3p-2, 0x1.ae0ea4b8aa948p-7,   0x1.a0062a6e95fddp-6,
      0x1.d73540ac8b334p-10, -0x1.8025b893451dcp-9, -0x1.2c5246f6e323cp-10, 0x1.283c9938893d3p-14,
      0x1.03c15840cfd0cp-12, 0x1.7098c720a4e5p-14,  -0x1.653fda7987396p-16, -0x1.2ca6536b4e124p-16};
};

template <>
struct Tail<double> {
  static constexpr double end = 64;
  static constexpr double coefficients[] = {
      0x1.5d6d7e0d4625fp-1,   -0x1.4ab50655ed4a5p-2,  0x1.883786bd6acb8p-6,
      0x1.123e7d556ca64p-5,   0x1.e3b8ca25dff5ap-12,  -0x1.652914765704ep-8,
      -0x1.c904ad6f2a2aap-10, 0x1.f447525320aa8p-12,  0x1.3a305d68091bbp-11,
      0x1.76f49f3d0155bp-13,  -0x1.d2beb12a125b2p-15, -0x1.4cd31d2885f1fp-14,
      -0x1.17b691b023666p-15, 0x1.27fae81a524dp-20,   0x1.64f8069884db3p-17,
      0x1.de764cd503af1p-18,  0x1.d057d70566cf9p-20,  -0x1.da8a6f0774eb1p-21,
      -0x1.0268ba66d74fep-20, -0x1.52235b542e242p-21, -0x1.20501244f65b9p-21,
      -0x1.e87f25b88a6fep-26, 0x1.e9e792e4a8b09p-22,  0x1.eac936b70552ap-23,
      -0x1.083db1dbf9486p-23, -0x1.910f80c358f16p-24, 0x1.a12ed5b4b428bp-27,
      0x1.b94950787fcb1p-27};
};

}  // namespace detail

/// Beyond which Φ(-x) and φ(x) are 0 as T.
template <class T>
constexpr double normal_limit = sizeof(T) == 8 ? 40 : 15;

namespace detail {

/// e^(-x²/2) of 0 ≤ x ≤ normal_limit<T>, for a result of type T.
template <class T>
Vector<double> bell(Vector<double> x) {
  if constexpr (sizeof(T) == 8) {
    // The square as two numbers, the first of which is exact.
    const Vector<double> head = head_of(x);
    Reduced<double> reduced(head * head * -0.5);
    reduced.r -= (x - head) * (x + head) * 0.5;
    return exponential<double>(reduced);
  } else {
    const Reduced<double> reduced(x * x * -0.5);
    return (1 + exp_minus_one<double, T>(reduced.r).high) * power_of_two<double>(reduced.k);
  }
}

}  // namespace detail

/// Φ(x) and φ(x) of the normal distribution, for a result of type T.
struct Normal {
  Vector<double> distribution, density;
};
template <class T>
Normal normal(Vector<double> x) {
  const Vector<double> size = detail::absolute<double>(detail::within<double>(x, normal_limit<T>));
  const Vector<double> power = detail::bell<T>(size);

  using Tail = detail::Tail<T>;
  constexpr double last = (Tail::end + 4) / Tail::end;
  const Vector<double> inverse = 1 / (size + 2), u = last - 2 * (last + 1) * inverse;
  Vector<double> series{};
  for (std::size_t i = std::size(Tail::coefficients); i-- > 0;) {
    series = Tail::coefficients[i] + series * u;
  }
  const Vector<double> tail =
      detail::flushed<double>(series * inverse * power, std::numeric_limits<T>::min());
  return {x < 0 ? tail : 1 - tail, power * (std::numbers::inv_sqrtpi / std::numbers::sqrt2)};
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
