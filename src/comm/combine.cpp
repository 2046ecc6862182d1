#include "comm/combine.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "lockstep/core/error.hpp"
#include "lockstep/core/half.hpp"

namespace lockstep::comm {
namespace {

// Elements that are carried through all steps of an order at a time, in the nearest cache.
constexpr std::size_t block_size = 512;
constexpr std::size_t max_depth = SumOrder::max_depth;

template <class T>
using Accumulator =
    std::conditional_t<std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>, float, T>;

struct Add {
  template <class A>
  A operator()(A a, A b) const {
    if constexpr (std::is_integral_v<A>) {  // wraps
      using Unsigned = std::make_unsigned_t<A>;
      return static_cast<A>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
    } else {
      return a + b;
    }
  }
};
struct Larger {
  template <class A>
  A operator()(A a, A b) const {
    return a < b ? b : a;
  }
};
struct Smaller {
  template <class A>
  A operator()(A a, A b) const {
    return b < a ? b : a;
  }
};

template <class T>
void load(std::size_t n, const T* x, Accumulator<T>* y) {
  std::size_t i = 0;
#ifdef __F16C__
  if constexpr (std::is_same_v<T, float16>) {
    for (; i + 8 <= n; i += 8) {
      const auto* source = reinterpret_cast<const __m128i*>(x + i);
      _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128(source)));
    }
  }
#endif
  for (; i < n; ++i) y[i] = static_cast<Accumulator<T>>(x[i]);
}

template <class A, class T>
void store(std::size_t n, const A* x, T* y) {
  std::size_t i = 0;
#ifdef __F16C__
  if constexpr (std::is_same_v<T, float16>) {
    for (; i + 8 <= n; i += 8) {
      const __m128i rounded = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), rounded);
    }
  }
#endif
  for (; i < n; ++i) y[i] = static_cast<T>(x[i]);
}

template <class A>
void scale(std::size_t n, A factor, A* x) {
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<A>(x[i] * factor);
}

// Whether to multiply by the inverse gives the same, and takes less time.
bool has_exact_inverse(double divisor) {
  int exponent = 0;
  return std::abs(std::frexp(divisor, &exponent)) == 0.5;
}

template <class A>
void divide(std::size_t n, double divisor, A* x) {
  if (std::is_integral_v<A> || divisor == 1) return;
  if (has_exact_inverse(divisor)) return scale(n, static_cast<A>(1 / divisor), x);
  const auto by = static_cast<A>(divisor);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<A>(x[i] / by);
}

template <class Op, class A>
void merge(std::size_t n, const A* x, A* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = Op()(y[i], x[i]);
}

template <class Op, class A>
void merge_scaled(std::size_t n, A factor, const A* x, A* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = Op()(y[i], static_cast<A>(factor * x[i]));
}

template <class A>
void add_two_weighted(std::size_t n, A weight_a, const A* a, A weight_b, const A* b, A* result) {
  for (std::size_t i = 0; i < n; ++i) result[i] = weight_a * a[i] + weight_b * b[i];
}

// One block: the numbers of level i of the stack are at levels[i].
template <class Op, class T>
void run_block(std::size_t begin, std::size_t n, std::span<const Operand> operands,
               const SumOrder& order, Accumulator<T>* const* levels) {
  using A = Accumulator<T>;
  if constexpr (std::is_same_v<T, A> && std::is_same_v<Op, Add> && std::is_floating_point_v<A>) {
    if (order.steps.size() == 2 && order.outputs == 1) {
      const Operand &a = operands[order.steps[0].input], &b = operands[order.steps[1].input];
      return add_two_weighted(n, static_cast<A>(a.weight), static_cast<const A*>(a.data) + begin,
                              static_cast<A>(b.weight), static_cast<const A*>(b.data) + begin,
                              levels[0]);
    }
  }
  alignas(64) std::array<A, block_size> converted;
  std::size_t top = 0;
  for (const SumOrder::Step& step : order.steps) {
    const Operand& operand = operands[step.input];
    const T* source = static_cast<const T*>(operand.data) + begin;
    constexpr bool weighted = std::is_same_v<Op, Add> && std::is_floating_point_v<A>;
    const A weight = weighted ? static_cast<A>(operand.weight) : A{1};
    std::uint32_t merges = step.merges;
    if (merges == 0) {
      load(n, source, levels[top]);
      if (weight != 1) scale(n, weight, levels[top]);
      ++top;
      continue;
    }
    const A* numbers;
    if constexpr (std::is_same_v<T, A>) {
      numbers = source;
    } else {
      load(n, source, converted.data());
      numbers = converted.data();
    }
    if (weight == 1) {
      merge<Op>(n, numbers, levels[top - 1]);
    } else {
      merge_scaled<Op>(n, weight, numbers, levels[top - 1]);
    }
    for (; merges > 1; --merges, --top) merge<Op>(n, levels[top - 1], levels[top - 2]);
  }
}

// Calls block(begin, n, levels) with memory for all levels of the stack, block by block; the lowest
// ones are the caller's `outputs`, where it has any.
template <class A, class Block>
void for_blocks(std::size_t count, std::span<A* const> outputs, Block block) {
  alignas(64) std::array<std::array<A, block_size>, max_depth> scratch;
  std::array<A*, max_depth> levels;
  for (std::size_t begin = 0; begin < count; begin += block_size) {
    for (std::size_t i = 0; i < max_depth; ++i) {
      levels[i] = i < outputs.size() ? outputs[i] + begin : scratch[i].data();
    }
    block(begin, std::min(block_size, count - begin), levels.data());
  }
}

// The most common case by far, in one pass: (weight_a · a + weight_b · b) · factor.
template <class A>
void mean_of_two(std::size_t n, A weight_a, const A* a, A weight_b, const A* b, A factor,
                 A* result) {
  for (std::size_t i = 0; i < n; ++i) result[i] = (weight_a * a[i] + weight_b * b[i]) * factor;
}

template <class Function>
void dispatch(Element element, Function&& function) {
  switch (element) {
    case Element::f32:
      return function.template operator()<float>();
    case Element::f64:
      return function.template operator()<double>();
    case Element::i64:
      return function.template operator()<std::int64_t>();
    case Element::u8:
      return function.template operator()<std::uint8_t>();
    case Element::f16:
      return function.template operator()<float16>();
    case Element::bf16:
      return function.template operator()<bfloat16>();
  }
}

template <class Function>
void dispatch(ReduceOp op, Function&& function) {
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::mean:
      return function.template operator()<Add>();
    case ReduceOp::max:
      return function.template operator()<Larger>();
    case ReduceOp::min:
      return function.template operator()<Smaller>();
  }
}

template <class Function>
void dispatch(WireFormat format, Function&& function) {
  if (format == WireFormat::fp16) return function.template operator()<float16>();
  function.template operator()<bfloat16>();
}

template <class Function>
void dispatch_wire(WireFormat format, Element element, Function&& function) {
  dispatch(format, [&]<class W>() {
    if (element == Element::f64) return function.template operator()<W, double>();
    function.template operator()<W, float>();
  });
}

// From elements of type S to a result of type T.
template <class S, class T, class Op>
void to_result(std::size_t count, std::span<const Operand> operands, const SumOrder& order,
               double divisor, T* result) {
  using A = Accumulator<S>;
  if constexpr (std::is_same_v<S, T> && std::is_same_v<T, A> && std::is_same_v<Op, Add> &&
                std::is_floating_point_v<T>) {
    if (order.steps.size() == 2 && order.outputs == 1 && has_exact_inverse(divisor)) {
      const Operand &a = operands[order.steps[0].input], &b = operands[order.steps[1].input];
      return mean_of_two(count, static_cast<T>(a.weight), static_cast<const T*>(a.data),
                         static_cast<T>(b.weight), static_cast<const T*>(b.data),
                         static_cast<T>(1 / divisor), result);
    }
  }
  const auto finish = [&](std::size_t begin, std::size_t n, A* const* levels) {
    run_block<Op, S>(begin, n, operands, order, levels);
    if constexpr (std::is_same_v<Op, Add>) divide(n, divisor, levels[0]);
    if constexpr (!std::is_same_v<T, A>) store(n, levels[0], result + begin);
  };
  if constexpr (std::is_same_v<T, A>) {
    for_blocks<A>(count, std::span<A* const>(&result, 1), finish);
  } else {
    for_blocks<A>(count, {}, finish);
  }
}

}  // namespace

std::string_view to_string(Element element) noexcept {
  constexpr std::array<std::string_view, 6> names{"f32", "f64", "i64", "u8", "f16", "bf16"};
  const auto index = static_cast<std::size_t>(element);
  return index < names.size() ? names[index] : "unknown";
}

std::size_t item_size(Element element) noexcept {
  std::size_t size = 0;
  dispatch(element, [&]<class T>() { size = sizeof(T); });
  return size;
}

std::size_t accumulator_size(Element element) noexcept {
  std::size_t size = 0;
  dispatch(element, [&]<class T>() { size = sizeof(Accumulator<T>); });
  return size;
}

std::size_t wire_size(WireFormat format) noexcept {
  std::size_t size = 0;
  dispatch(format, [&]<class W>() { size = sizeof(W); });
  return size;
}

void combine(Element element, ReduceOp op, std::size_t count, std::span<const Operand> operands,
             const SumOrder& order, void* const* outputs) {
  dispatch(element, [&]<class T>() {
    using A = Accumulator<T>;
    dispatch(op, [&]<class Op>() {
      std::array<A*, max_depth> typed;
      for (std::size_t i = 0; i < order.outputs; ++i) typed[i] = static_cast<A*>(outputs[i]);
      for_blocks<A>(count, std::span(typed).first(order.outputs),
                    [&](std::size_t begin, std::size_t n, A* const* levels) {
                      run_block<Op, T>(begin, n, operands, order, levels);
                    });
    });
  });
}

void conclude(Element element, ReduceOp op, std::size_t count, std::span<const Operand> operands,
              const SumOrder& order, double divisor, void* result) {
  dispatch(element, [&]<class T>() {
    dispatch(op, [&]<class Op>() {
      to_result<Accumulator<T>, T, Op>(count, operands, order, divisor, static_cast<T*>(result));
    });
  });
}

void combine_and_conclude(Element element, ReduceOp op, std::size_t count,
                          std::span<const Operand> operands, const SumOrder& order, double divisor,
                          void* result) {
  dispatch(element, [&]<class T>() {
    dispatch(op, [&]<class Op>() {
      to_result<T, T, Op>(count, operands, order, divisor, static_cast<T*>(result));
    });
  });
}

void to_wire(WireFormat format, Element element, std::size_t count, const void* numbers,
             double factor, void* wire) {
  dispatch_wire(format, element, [&]<class W, class T>() {
    alignas(64) std::array<float, block_size> scaled;
    for (std::size_t begin = 0; begin < count; begin += block_size) {
      const std::size_t n = std::min(block_size, count - begin);
      const T* x = static_cast<const T*>(numbers) + begin;
      const T by = static_cast<T>(factor);
      for (std::size_t i = 0; i < n; ++i) scaled[i] = static_cast<float>(by * x[i]);
      store(n, scaled.data(), static_cast<W*>(wire) + begin);
    }
  });
}

void conclude_wire(WireFormat format, Element element, std::size_t count,
                   std::span<const Operand> operands, const SumOrder& order, double divisor,
                   void* result) {
  dispatch_wire(format, element, [&]<class W, class T>() {
    to_result<W, T, Add>(count, operands, order, divisor, static_cast<T*>(result));
  });
}

}  // namespace lockstep::comm
