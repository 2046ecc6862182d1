#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Tensors of the caller's, by name, as something that can be saved, such as the fields of a
/// simulation: NamedTensors fields({{"temperature", Tensor::borrow(values, {nx, ny})}}). Of a field
/// that ranks have cut into ranges each gives its own, as a TensorPart, and gets its own of a
/// checkpoint, on any number of ranks.
class NamedTensors : public Stateful {
 public:
  using Entry = std::variant<Tensor, TensorPart>;

  /// Shares the memory of the tensors. NameError for two of one name; StateError for an undefined
  /// one; ShapeError for a part that is not of one axis, or not within its tensor.
  explicit NamedTensors(std::vector<std::pair<std::string, Entry>> tensors);

  StateDict state_dict() const override { return state_; }
  /// StateError for other names, or another part; ShapeError and DTypeError for tensors that are
  /// not like those here.
  void check_restore(const StateDict& source) const override;
  /// Copies the numbers into the tensors here.
  void restore(const StateDict& source) override;

 private:
  StateDict state_;
};

}  // namespace lockstep

#pragma GCC visibility pop
