#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/optim/clipping.hpp"
#include "lockstep/optim/param_group.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

struct StepOptions {
  double gradient_scale = 1;  ///< what gradients are multiplied with: 1 / loss scale
  /// Whether parameters of a reducer may all be without a gradient, instead of an error.
  bool allow_none = false;
  /// What to do in this step where a gradient is not finite, whatever the optimizer's clipping says
  /// and even if it has none. Without that and clipping, nobody looks.
  std::optional<optim::NonFinite> non_finite = std::nullopt;
};

struct StepReport {
  bool applied = true;  ///< false where the step was skipped
  bool empty = false;   ///< no parameter had a gradient
  /// Norm of all gradients, times the gradient_scale, before clipping; where gradients were looked at.
  std::optional<double> gradient_norm = std::nullopt;
  /// Parameters whose gradients are not finite, for which the step was skipped unless they are ignored.
  std::vector<std::string> non_finite = {};
};

/// The face of all optimizers whose state is keyed by parameter name. None of it is collective,
/// unless an optimizer says so.
class KeyedOptimizer : public Stateful {
 public:
  using Closure = std::function<double()>;
  using BeforeStep = std::function<void(KeyedOptimizer&)>;
  using AfterStep = std::function<void(KeyedOptimizer&, const StepReport&)>;

  /// Updates the parameters that have a gradient and require one. OptionError for a gradient_scale
  /// that is zero or not finite, StateError for a gradient that is not finite where clipping or the
  /// options say so, for gradients that a reducer has yet to reduce, as those under no_sync(), and where
  /// parameters of a reducer require gradients, but none is there, as when zero_grad() comes after the
  /// backward; nothing has changed then. Gradients that were reduced are the same on all ranks, and so is
  /// what comes of it.
  StepReport step(const StepOptions& options = {});
  /// Calls the closure, which computes the loss and its gradients (after zero_grad(), mostly), makes
  /// a step, and returns the loss. The closure of an optimizer that searches along a line is called
  /// several times, and must return the same on all ranks.
  template <class F>
  requires std::is_invocable_r_v<double, F&>
  double step(F closure) { return step_with(Closure(std::move(closure))); }
  /// Updates a parameter that has a gradient by itself, without hooks. NameError for one in no
  /// group; OptionError where clipping needs all gradients.
  StepReport step_parameter(const Parameter& parameter, const StepOptions& options = {});
  /// Forgets the gradients of all parameters, or sets existing ones to zero.
  void zero_grad(bool set_to_none = true);

  /// Clips gradients in each step (OptionError for bad limits): in place by value and by their own norms, and by the global norm
  /// without touching the gradients themselves.
  void set_clipping(const optim::Clipping& clipping);
  void remove_clipping() { clipping_.reset(); }
  const std::optional<optim::Clipping>& clipping() const noexcept { return clipping_; }

  /// Calls a function before, or after, each step; not after a skipped one. Returns a number for
  /// remove_hook. A hook that another one adds is called from the next step on. OptionError for an
  /// empty function.
  std::int64_t before_step(BeforeStep hook);
  std::int64_t after_step(AfterStep hook);
  void remove_hook(std::int64_t handle);

  virtual ParamGroups param_groups() = 0;
  virtual ConstParamGroups param_groups() const = 0;
  /// The names of the groups, in the order of param_groups().
  virtual std::vector<std::string> group_names() const = 0;
  /// NameError, which lists the names there are, where no group has that name.
  ParamGroup& param_group(std::string_view name);
  /// Adds a group, or throws and changes nothing.
  virtual void add_param_group(const ParamGroupOptions& options) = 0;

  /// All parameters that groups can be made of, under their names in state dicts.
  virtual std::vector<NamedParameter> named_parameters() const = 0;
  /// Calls a function for each parameter in a group, once, under the first of its names.
  virtual void visit_parameters(const std::function<void(const NamedParameter&)>& visit) const = 0;
  /// Whether the parameter is in a group.
  virtual bool contains(const Parameter& parameter) const = 0;

  /// Takes over the state of the parameters that both know, by name.
  LoadReport load_state_dict(const StateDict& source, const LoadOptions& options) override = 0;
  using Stateful::load_state_dict;
  LoadReport check_load(const StateDict& source, const LoadOptions& options) const override = 0;
  /// Makes the state that load_state_dict needs, without a step: zero gradients and initial slots
  /// for every parameter that requires a gradient. Values, step counts, and gradients and slots that
  /// exist stay as they are.
  virtual void init_state() = 0;

  /// Throws where options of the optimizer contradict each other, which a step does before anything
  /// changes.
  virtual void check_step() const {}
  /// Does what may throw on one rank alone, such as the hooks of a step: on all ranks alike where steps are
  /// collective.
  virtual void agree(const std::function<void()>& work) const { work(); }
  /// step(closure), for an optimizer to override.
  virtual double step_with(const Closure& closure);
  /// The step itself, of all parameters or of one, without hooks and clipping.
  /// Whether there was anything to update.
  virtual bool update(double gradient_scale) = 0;
  virtual void update(const Parameter& parameter, double gradient_scale) = 0;

 protected:
  KeyedOptimizer() = default;
  KeyedOptimizer(KeyedOptimizer&&) = default;
  KeyedOptimizer& operator=(KeyedOptimizer&&) = default;

  void run_before_step();
  void run_after_step(const StepReport& report);

 private:
  void check_reduced() const;
  std::optional<optim::Clipping> clipping_for(const StepOptions& options) const;

  std::optional<optim::Clipping> clipping_;
  std::vector<std::pair<std::int64_t, BeforeStep>> before_;
  std::vector<std::pair<std::int64_t, AfterStep>> after_;
  std::int64_t next_hook_ = 0;
};

}  // namespace lockstep

#pragma GCC visibility pop
