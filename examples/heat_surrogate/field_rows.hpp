#pragma once

#include <lockstep/state/named_tensors.hpp>

#include "solver.hpp"

/// The fields as a checkpoint has them: a rank's block is no range of all cells in their order, so
/// it has whole rows of them instead. Then one file does for any number of ranks.
class FieldRows {
 public:
  explicit FieldRows(const Decomposition& cells);

  /// Both collective.
  void take(const Fields& fields);
  void give(Fields& fields) const;

  lockstep::NamedTensors& state() { return state_; }

 private:
  const Decomposition* cells_;
  lockstep::Tensor temperature_, fuel_;
  lockstep::NamedTensors state_;
};
