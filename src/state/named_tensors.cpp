#include "lockstep/state/named_tensors.hpp"

#include <fmt/format.h>

#include <utility>

#include "lockstep/core/error.hpp"
#include "state/loading.hpp"
#include "state/parts.hpp"

namespace lockstep {
namespace {

void check(const std::string& name, const Tensor& tensor) {
  if (!tensor.defined()) throw StateError(fmt::format("the tensor '{}' is undefined", name));
}

void check(const std::string& name, const TensorPart& part) {
  check(name, part.numbers);
  if (part.numbers.shape().rank() == 1 && part.begin >= 0 &&
      part.numbers.size() <= part.shape.size() - part.begin) {
    return;
  }
  throw ShapeError(
      fmt::format("'{}': expected a part of one axis, within a tensor of {} numbers; found one of "
                  "shape {} from "
                  "number {} on",
                  name, part.shape.size(), to_string(part.numbers.shape()), part.begin));
}

// The numbers of `found` that belong into an entry.
Tensor fitting(const std::string& name, const StateValue& own, const StateValue& found) {
  const std::string what = fmt::format("'{}'", name);
  if (const auto* part = std::get_if<TensorPart>(&own.variant())) {
    return part_of(found, part->shape, part->numbers.dtype(), part->begin, part->numbers.size(),
                   false, what);
  }
  check_same(own.as_tensor(), found.as_tensor(), what.c_str());
  return found.as_tensor();
}

}  // namespace

NamedTensors::NamedTensors(std::vector<std::pair<std::string, Entry>> tensors) {
  for (auto& named : tensors) {
    const std::string& name = named.first;
    Entry& tensor = named.second;
    std::visit([&](auto& entry) { check(name, entry); }, tensor);
    if (state_.contains(name)) throw NameError(fmt::format("two tensors are called '{}'", name));
    state_[name] = std::visit([](auto& entry) { return StateValue(std::move(entry)); }, tensor);
  }
}

void NamedTensors::check_restore(const StateDict& source) const {
  check_names(state_, source);
  for (const auto& [name, own] : state_) fitting(name, own, source.at(name));
}

void NamedTensors::restore(const StateDict& source) {
  check_restore(source);
  for (auto& [name, own] : state_) {
    const Tensor numbers = fitting(name, own, source.at(name));
    const auto* part = std::get_if<TensorPart>(&own.variant());
    Tensor target = part != nullptr ? part->numbers : own.as_tensor();
    target.copy_from(numbers);
  }
}

}  // namespace lockstep
