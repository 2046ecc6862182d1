#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "comm/sum_order.hpp"
#include "lockstep/comm/reduce_op.hpp"
#include "lockstep/comm/wire.hpp"

namespace lockstep::comm {

/// What can be reduced. Sums of f16 and bf16 are made in f32.
enum class Element : std::uint8_t { f32, f64, i64, u8, f16, bf16 };

std::string_view to_string(Element element) noexcept;
std::size_t item_size(Element element) noexcept;
/// Of what sums are made in: f32 for f16 and bf16, and else the same.
std::size_t accumulator_size(Element element) noexcept;
/// Of a number that travels in that format, which is not full.
std::size_t wire_size(WireFormat format) noexcept;

/// One of the arrays that are combined, and what a sum multiplies it by (f32, f64, f16, bf16).
struct Operand {
  const void* data;
  double weight = 1;
};

/// Combines `count` elements of each operand element by element, in the given order: outputs[i]
/// receives output i, in accumulators. Every element is computed alike, wherever it lies. Memory
/// that is written must be no operand's, save the first of a chain's in the same place.
void combine(Element element, ReduceOp op, std::size_t count, std::span<const Operand> operands,
             const SumOrder& order, void* const* outputs);

/// The same for operands that are accumulators themselves, and an order with one output, which is
/// divided by `divisor` (where op is sum or mean, and not of integers) and stored as elements.
void conclude(Element element, ReduceOp op, std::size_t count, std::span<const Operand> operands,
              const SumOrder& order, double divisor, void* result);

/// Both in one pass: operands are elements, and so is the result.
void combine_and_conclude(Element element, ReduceOp op, std::size_t count,
                          std::span<const Operand> operands, const SumOrder& order, double divisor,
                          void* result);

/// Writes `factor` times each of `count` numbers of f32 or f64 as they travel.
void to_wire(WireFormat format, Element element, std::size_t count, const void* numbers,
             double factor, void* wire);

/// As conclude(), of sums of f32 or f64 whose operands are as they travel.
void conclude_wire(WireFormat format, Element element, std::size_t count,
                   std::span<const Operand> operands, const SumOrder& order, double divisor,
                   void* result);

}  // namespace lockstep::comm
