#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

struct MovingAverageOptions {
  double decay = 0.999;  ///< what an update keeps of the average; 0 ≤ decay < 1
  /// While few updates were made, keeps less: min(decay, (1 + updates) / (10 + updates)).
  bool warm_up = false;
};

/// Exponential moving average of parameters, by name: average = decay · average + (1 - decay) ·
/// value, from the values at construction on. Polyak, Juditsky, "Acceleration of stochastic
/// approximation by averaging", SIAM J. Control Optim. 30, 1992.
///
///     ExponentialMovingAverage average(model.named_parameters(), {.decay = 0.999});
///     optimizer.after_step([&](auto&, auto&) { average.update(); });
///     …
///     {
///       const UseAverage use(average);  // the model has the averages
///       evaluate(model);
///     }                                 // and here its own values again
///
/// state_dict() is {"updates": 7, "average": {"net1.0.weight": …}}, with tensors as views.
class ExponentialMovingAverage : public Stateful {
 public:
  /// OptionError for a bad decay or no parameters; StateError for an undefined one; NameError where two different parameters have
  /// the same name. One that comes under several names goes by the first;
  /// what is restored may use any.
  explicit ExponentialMovingAverage(const std::vector<NamedParameter>& parameters,
                                    const MovingAverageOptions& options = {});
  ExponentialMovingAverage(ExponentialMovingAverage&&) = default;
  ExponentialMovingAverage& operator=(ExponentialMovingAverage&&) = default;

  /// Takes the present values into the averages. StateError while they are exchanged.
  void update();
  /// Exchanges values and averages; a second call changes them back.
  void exchange();
  bool exchanged() const noexcept { return exchanged_; }

  std::int64_t updates() const noexcept { return updates_; }
  /// NameError for a name that it does not have.
  const Tensor& average(const std::string& name) const;

  /// These throw StateError while values and averages are exchanged, and the last two where the
  /// source lacks a parameter or has another; ShapeError or DTypeError where one differs.
  StateDict state_dict() const override;
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  friend class UseAverage;

  struct Entry {
    NamedParameter named;
    Tensor average;
  };

  void require_own_values(const char* what) const;

  const Tensor& found_in(const StateDict& averages, const std::string& name) const;

  MovingAverageOptions options_;
  std::map<std::string, std::string> aliases_;  // other names, to those in entries_
  std::vector<Entry> entries_;
  std::int64_t updates_ = 0;
  bool exchanged_ = false;
};

/// While one exists, the parameters have their averages as values.
class UseAverage {
 public:
  /// StateError where they have already.
  explicit UseAverage(ExponentialMovingAverage& average);
  ~UseAverage() { average_.exchange(); }
  UseAverage(const UseAverage&) = delete;
  UseAverage& operator=(const UseAverage&) = delete;

 private:
  ExponentialMovingAverage& average_;
};

}  // namespace lockstep

#pragma GCC visibility pop
