#include "state/parts.hpp"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "lockstep/core/error.hpp"
#include "state/loading.hpp"

namespace lockstep {
namespace {

std::string describe(const TensorPart& part) {
  return fmt::format("parts of a tensor of {} {}", to_string(part.numbers.dtype()),
                     to_string(part.shape));
}

}  // namespace

StateDict split_parts(StateDict& state) {
  StateDict parts;
  for (auto& [key, value] : state) {
    if (const auto* part = std::get_if<TensorPart>(&value.variant())) {
      std::string description = describe(*part);
      parts[key] = std::move(value);
      value = std::move(description);
    } else if (std::holds_alternative<StateDict>(value.variant())) {
      StateDict below = split_parts(value.as_dict());
      if (!below.empty()) parts[key] = std::move(below);
    }
  }
  return parts;
}

Tensor part_of(const StateValue& found, const Shape& shape, DType dtype, std::int64_t begin,
               std::int64_t size, bool convert_dtype, const std::string& what) {
  const auto* part = std::get_if<TensorPart>(&found.variant());
  Tensor numbers = part != nullptr ? part->numbers : found.as_tensor();
  const Shape& found_shape = part != nullptr ? part->shape : numbers.shape();
  if (found_shape != shape) {
    throw ShapeError(fmt::format("{}: expected shape {}, found {}", what, to_string(shape),
                                 to_string(found_shape)));
  }
  if (part != nullptr && (part->begin != begin || numbers.size() != size)) {
    throw StateError(
        fmt::format("{}: expected numbers {} to {}, which are this rank's share, found {} to {}: "
                    "checkpoint::load gives each rank its own",
                    what, begin, begin + size, part->begin, part->begin + numbers.size()));
  }
  if (numbers.dtype() != dtype) {
    if (!convert_dtype || !is_floating(numbers.dtype()) || !is_floating(dtype)) {
      throw DTypeError(fmt::format("{}: expected dtype {}, found {}", what, to_string(dtype),
                                   to_string(numbers.dtype())));
    }
    numbers = converted(numbers, dtype, what);
  }
  return part != nullptr ? numbers.reshape({size}) : numbers.window(begin, {size});
}

}  // namespace lockstep
