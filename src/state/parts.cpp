#include "state/parts.hpp"

#include <fmt/format.h>

#include <string>
#include <utility>

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

}  // namespace lockstep
