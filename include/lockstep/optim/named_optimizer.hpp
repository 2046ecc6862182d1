#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/optim/keyed_optimizer.hpp"

namespace lockstep {

/// An optimizer that knows its parameters by name, so that its state can be saved and loaded by
/// name.
///
/// state_dict() is
///
///     {"rule": "Adam",
///      "state": {"net1.0.weight": {"exp_avg": …, "exp_avg_sq": …, "step": 7}, …},
///      "param_groups": [{"params": ["net1.0.bias", …], "lr": 0.001, …}, …]}
///
/// where a parameter that has no state yet is absent from "state". Tensors are views: clone() the
/// dict to keep it.
class NamedOptimizer : public KeyedOptimizer {
 public:
  /// One group with all parameters.
  NamedOptimizer(std::vector<NamedParameter> parameters, const optim::UpdateRule& rule);
  /// The given groups, whose parameters must be among `parameters`. NameError for a stranger, for a
  /// name or parameter that comes twice; OptionError for an empty group or a bad hyper-parameter.
  /// Parameters in no group stay as they are, which is logged as a warning.
  NamedOptimizer(std::vector<NamedParameter> parameters, const optim::UpdateRule& rule,
                 const std::vector<ParamGroupOptions>& groups);

  void step() override;
  void zero_grad(bool set_to_none = true) override;
  std::deque<ParamGroup>& param_groups() override { return groups_; }
  const std::deque<ParamGroup>& param_groups() const override { return groups_; }
  void add_param_group(const ParamGroupOptions& options) override;

  StateDict state_dict() const override;

  /// The rules of PyTorch's _NamedOptimizer: this optimizer must have state already (step() or
  /// init_state()), unless its rule keeps none. A parameter that the source lacks keeps its state;
  /// one that only the source has is ignored. Groups are matched by their sets of names, and take
  /// over the hyper-parameters; a group that the source lacks keeps its own. Slots
  /// (StateError), shapes (ShapeError) and dtypes (DTypeError) must agree exactly.
  void load_state_dict(const StateDict& source) override;
  void init_state() override;

  /// Unlike load_state_dict, wants the same rule, groups and parameters as the source's, and needs
  /// no state of its own: afterwards exactly those slots exist that existed in the source.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  struct Entry {
    Parameter parameter;
    ParamGroup* group = nullptr;
    bool exists = false;  // whether the parameter has state
    std::int64_t steps = 0;
    std::vector<Tensor> slots;   // windows of slot_memory_
    std::size_t live_slots = 0;  // how many of them mean something
    std::uint64_t layout_epoch = 0;
  };
  class Run;
  /// What a load is going to do, found out before anything changes.
  struct LoadPlan;

  void add_group(const ParamGroupOptions& options);
  void arrange_slots(const std::vector<Entry*>& wanted);
  bool keeps_state() const;
  StateDict entry_state(const Entry& entry) const;
  LoadPlan plan_load(const StateDict& source) const;
  LoadPlan plan_restore(const StateDict& source) const;
  void apply(const LoadPlan& plan);

  std::unique_ptr<optim::UpdateRule> defaults_;
  std::map<const void*, std::string> names_;  // of all parameters known, by identity
  std::deque<ParamGroup> groups_;
  std::map<std::string, Entry> entries_;  // of the parameters in groups
  std::vector<Entry*> order_;             // group by group, each by dtype and address
  std::vector<Tensor> slot_memory_;
};

}  // namespace lockstep
