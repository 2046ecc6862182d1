#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/optim/update_rule.hpp"
#include "lockstep/state/state_dict.hpp"

namespace lockstep {

/// The parameters of a group: several, or a lone one.
struct ParameterList : std::vector<Parameter> {
  ParameterList() = default;
  ParameterList(std::vector<Parameter> parameters)  // NOLINT: lists convert
      : std::vector<Parameter>(std::move(parameters)) {}
  ParameterList(std::initializer_list<Parameter> parameters) : std::vector<Parameter>(parameters) {}
  ParameterList(Parameter parameter) { push_back(std::move(parameter)); }  // NOLINT
};

/// What is asked for when a param group is made. Hyper-parameters that are not named here are those
/// of the optimizer's update rule: {.params = model.net3.parameters(), .lr = 1e-3}.
struct ParamGroupOptions {
  ParameterList params;
  std::optional<double> lr = std::nullopt;
  StateDict fields = {};  ///< any other hyper-parameters by name: {{"weight_decay", 1e-4}}
};

/// Parameters that share hyper-parameters. A group belongs to its optimizer, and what is set here
/// is what the next step uses.
class ParamGroup {
 public:
  ParamGroup(std::vector<NamedParameter> parameters, std::unique_ptr<optim::UpdateRule> rule);

  const std::vector<NamedParameter>& parameters() const noexcept { return parameters_; }
  /// The names of the parameters, sorted.
  std::vector<std::string> names() const;

  double lr() const { return get("lr").as_double(); }
  void set_lr(double lr) { set({{"lr", lr}}); }
  /// Hyper-parameters by name; see UpdateRule::get and UpdateRule::set for the errors.
  StateValue get(std::string_view field) const { return rule_->get(field); }
  void set(const StateDict& fields) { rule_->set(fields); }
  const optim::UpdateRule& rule() const noexcept { return *rule_; }

  /// "params", the sorted names, and every hyper-parameter.
  StateDict state_dict() const;

 private:
  std::vector<NamedParameter> parameters_;
  std::unique_ptr<optim::UpdateRule> rule_;
};

/// The face of all optimizers whose state is keyed by parameter name. None of it is collective,
/// unless an optimizer says so.
class KeyedOptimizer : public Stateful {
 public:
  /// Updates the parameters that have a gradient and require one.
  virtual void step() = 0;
  /// Forgets the gradients of all parameters, or sets existing ones to zero.
  virtual void zero_grad(bool set_to_none = true) = 0;

  /// The groups, live; a reference to one stays valid while the optimizer lives.
  virtual std::deque<ParamGroup>& param_groups() = 0;
  virtual const std::deque<ParamGroup>& param_groups() const = 0;
  /// Adds a group, or throws and changes nothing.
  virtual void add_param_group(const ParamGroupOptions& options) = 0;

  /// Takes over the state of the parameters that both know, by name; throws an Error of the kind
  /// that fits (mostly StateError, ShapeError or DTypeError) and changes nothing where it does not
  /// fit.
  virtual void load_state_dict(const StateDict& source) = 0;
  /// Makes the state that load_state_dict needs, without a step: zero gradients and zero slots for
  /// every parameter that requires a gradient. Values, step counts, and gradients and slots that
  /// exist stay as they are.
  virtual void init_state() = 0;
};

}  // namespace lockstep
