#include "lockstep/state/named_tensors.hpp"

#include <fmt/format.h>

#include <utility>

#include "lockstep/core/error.hpp"
#include "state/loading.hpp"

namespace lockstep {

NamedTensors::NamedTensors(std::vector<std::pair<std::string, Tensor>> tensors) {
  for (auto& [name, tensor] : tensors) {
    if (!tensor.defined()) throw StateError(fmt::format("the tensor '{}' is undefined", name));
    if (state_.contains(name)) throw NameError(fmt::format("two tensors are called '{}'", name));
    state_[name] = std::move(tensor);
  }
}

void NamedTensors::check_restore(const StateDict& source) const {
  check_names(state_, source);
  for (const auto& [name, own] : state_) {
    check_same(own.as_tensor(), source.at(name).as_tensor(), fmt::format("'{}'", name).c_str());
  }
}

void NamedTensors::restore(const StateDict& source) {
  check_restore(source);
  for (auto& [name, own] : state_) own.as_tensor().copy_from(source.at(name).as_tensor());
}

}  // namespace lockstep
