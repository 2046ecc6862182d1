#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/optim/keyed_optimizer.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Several optimizers with one face, as for a network whose parts are trained by different rules:
///
///     CombinedOptimizer optimizer({{"dense", adam}, {"embedding", sgd}});
///
/// Everything of a member goes by "prefix.name": parameters in state dicts and messages, and param
/// groups. A step is a step of each member, in order, with the members' own hooks inside its own.
/// Clipping is set here, so that a step that is refused has changed nothing.
class CombinedOptimizer : public KeyedOptimizer {
 public:
  using Members = std::vector<std::pair<std::string, std::reference_wrapper<KeyedOptimizer>>>;

  /// The members must outlive it. A prefix may be empty, for names as they are. NameError where two
  /// members have the same prefix, or two parameters or groups the same name; OptionError where there is no
  /// member, one comes twice, or one needs a closure, as LBFGS does.
  explicit CombinedOptimizer(Members members);

  ParamGroups param_groups() override;
  ConstParamGroups param_groups() const override;
  std::vector<std::string> group_names() const override;
  /// Adds the group to the member that its parameters belong to; where several members know one that
  /// is chosen by itself, to the first of them. OptionError for parameters of two members.
  void add_param_group(const ParamGroupOptions& options) override;
  std::vector<NamedParameter> named_parameters() const override;
  void visit_parameters(const std::function<void(const NamedParameter&)>& visit) const override;
  bool contains(const Parameter& parameter) const override;

  /// {"rule": {"dense": "Adam", …}, "state": {"dense.net1.0.weight": {…}, …}, "param_groups": […]}
  void agree(const std::function<void()>& work) const override;
  StateDict state_dict() const override { return join_states(&KeyedOptimizer::state_dict); }
  StateDict wanted() const override { return join_states(&KeyedOptimizer::wanted); }
  /// As the members do it, each with its part of the source.
  LoadReport load_state_dict(const StateDict& source, const LoadOptions& options) override;
  using KeyedOptimizer::load_state_dict;
  LoadReport check_load(const StateDict& source, const LoadOptions& options) const override;
  void init_state() override;

  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

  /// StateError where a member has clipping of its own.
  void check_step() const override;
  bool update(double gradient_scale) override;
  void update(const Parameter& parameter, double gradient_scale) override;

 private:
  StateDict join_states(StateDict (KeyedOptimizer::*state_of)() const) const;
  std::size_t member_of(const std::string& name) const;
  std::string local_name(std::size_t member, const std::string& name) const;
  std::vector<StateDict> split(const StateDict& source, const LoadOptions& options,
                               LoadReport& report) const;
  std::vector<StateDict> split_exactly(const StateDict& source) const;

  Members members_;
  std::map<std::string, std::size_t> owners_;  // members by the full names of their parameters
};

}  // namespace lockstep

#pragma GCC visibility pop
