#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lockstep/optim/hyper_parameters.hpp"
#include "lockstep/optim/keyed_optimizer.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

struct LBFGSOptions {
  double lr = 1;                    ///< length of a step, or the first one of a line search
  std::int64_t max_iter = 20;       ///< iterations a step
  std::int64_t max_eval = 0;        ///< calls of the closure a step; 0 for max_iter · 5 / 4
  double tolerance_grad = 1e-7;     ///< ends where no number of the gradient is larger
  double tolerance_change = 1e-9;   ///< ends where loss or values change less
  std::int64_t history_size = 100;  ///< pairs of changes that are kept
  bool strong_wolfe = false;        ///< searches along the direction

  std::vector<Field> fields();
};

/// Limited-memory BFGS: Liu, Nocedal, "On the limited memory BFGS method for large scale
/// optimization", Mathematical Programming 45, 1989; the direction by the two loops of Nocedal,
/// Wright, "Numerical optimization", algorithm 7.4, the line search by algorithms 3.5 and 3.6 there
/// with cubic interpolation.
///
/// For all parameters at once, in one group. step() wants a closure, which is called several times,
/// and whose loss and gradients must be the same on all ranks (the mean over them), since they
/// decide where the search goes. Inner products are added up in double precision.
///
/// state_dict() is {"rule": "LBFGS", "param_groups": […], "state": {name: {"direction": …,
/// "previous_gradient": …, "gradient_changes": […], "value_changes": […]}, …}, "search":
/// {"iterations": …, "evaluations": …, "step_size": …, "scale": …, "loss": …, "inverse_products":
/// […]}}; "state" is empty before the first step.
class LBFGS : public KeyedOptimizer {
 public:
  /// NameError where two different parameters have the same name, OptionError for a bad
  /// hyper-parameter or no parameters.
  explicit LBFGS(const std::vector<NamedParameter>& parameters, const LBFGSOptions& options = {});

  /// step(closure): up to max_iter iterations. Returns the loss at the start. StateError where the
  /// loss or a gradient is not finite there, or where the search ends; with any exception, values and
  /// state are as before.
  /// OptionError with clipping, or for an empty closure.
  double step_with(const Closure& closure) override;
  /// OptionError: only step_with() makes a step.
  void check_step() const override;

  ParamGroups param_groups() override { return ParamGroups({&groups_.front()}); }
  ConstParamGroups param_groups() const override { return ConstParamGroups({&groups_.front()}); }
  std::vector<std::string> group_names() const override { return {groups_.front().name()}; }
  /// OptionError: there is one group.
  void add_param_group(const ParamGroupOptions& options) override;
  std::vector<NamedParameter> named_parameters() const override { return parameters(); }
  void visit_parameters(const std::function<void(const NamedParameter&)>& visit) const override;
  bool contains(const Parameter& parameter) const override;

  StateDict state_dict() const override;
  /// Takes over state of all parameters, whatever the state here; none can be left out, so
  /// OptionError for a prefix. The group's hyper-parameters are taken over as well.
  LoadReport load_state_dict(const StateDict& source, const LoadOptions& options) override;
  using KeyedOptimizer::load_state_dict;
  LoadReport check_load(const StateDict& source, const LoadOptions& options) const override;
  /// Makes gradients exist, as zeros; there is no state before the first step.
  void init_state() override;

  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

  /// OptionError: a step needs a closure, and all parameters.
  bool update(double gradient_scale) override;
  void update(const Parameter& parameter, double gradient_scale) override;

 private:
  /// A tensor for each parameter: one point or direction of the search. Never changed once made.
  using Vector = std::vector<Tensor>;
  struct Pair {
    Vector gradient_change, value_change;
    double inverse_product = 0;  // 1 / their inner product
  };
  struct Search {
    std::int64_t iterations = 0, evaluations = 0;
    double step_size = 0;
    double scale = 1;  // of the first approximation to the inverse Hessian
    double loss = 0;
    Vector direction, previous_gradient;
    std::deque<Pair> history;
  };
  struct [[gnu::visibility("hidden")]] LoadPlan;

  const std::vector<NamedParameter>& parameters() const { return groups_.front().parameters(); }
  const LBFGSOptions& options() const;
  Vector values() const;
  Vector gradients() const;
  void move_to(const Vector& start, double step_size, const Vector& direction);
  void check_finite(double loss) const;
  void check_finite(const Vector& gradient) const;
  void iterate(const Closure& closure, double loss, Vector gradient);
  void remember(const Vector& gradient);
  Vector newton_direction(const Vector& gradient) const;
  LoadPlan plan_load(const StateDict& source, const LoadOptions& options) const;

  std::deque<ParamGroup> groups_;  // one
  std::map<std::string, std::string> aliases_;
  Search search_;
};

}  // namespace lockstep::optim

#pragma GCC visibility pop
