#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/state/state_dict.hpp"

namespace lockstep {

/// Numbers of the caller's, by name, as something that can be saved: Scalars progress{{"epoch",
/// &epoch}}. The numbers must outlive it.
class Scalars : public Stateful {
 public:
  using Number = std::variant<std::int64_t*, double*>;

  explicit Scalars(std::vector<std::pair<std::string, Number>> numbers)
      : numbers_(std::move(numbers)) {}

  StateDict state_dict() const override;
  /// StateError or NameError where a number is missing from the source, or has another type.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  std::vector<std::pair<std::string, Number>> numbers_;
};

}  // namespace lockstep
