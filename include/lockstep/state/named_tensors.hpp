#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lockstep/state/stateful.hpp"

namespace lockstep {

/// Tensors of the caller's, by name, as something that can be saved, such as the fields of a simulation:
/// NamedTensors fields({{"temperature", Tensor::borrow(values, {nx, ny})}}).
class NamedTensors : public Stateful {
 public:
  /// Shares the memory of the tensors. NameError for two of one name; StateError for an undefined one.
  explicit NamedTensors(std::vector<std::pair<std::string, Tensor>> tensors);

  StateDict state_dict() const override { return state_; }
  /// StateError for other names; ShapeError and DTypeError for tensors that are not like those here.
  void check_restore(const StateDict& source) const override;
  /// Copies the numbers into the tensors here.
  void restore(const StateDict& source) override;

 private:
  StateDict state_;
};

}  // namespace lockstep
