#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Scalars of the caller's, by name, as something that can be saved: Scalars progress({{"epoch",
/// &epoch}}). They must outlive it.
class Scalars : public Stateful {
 public:
  using Scalar = std::variant<std::int64_t*, double*, bool*, std::string*>;

  explicit Scalars(std::vector<std::pair<std::string, Scalar>> scalars)
      : scalars_(std::move(scalars)) {}

  StateDict state_dict() const override;
  /// StateError where the source has other names, or a scalar of another type.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  std::vector<std::pair<std::string, Scalar>> scalars_;
};

}  // namespace lockstep

#pragma GCC visibility pop
