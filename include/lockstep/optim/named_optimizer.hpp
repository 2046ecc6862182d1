#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/optim/keyed_optimizer.hpp"
#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// An optimizer that knows its parameters by name, so that its state can be saved and loaded by
/// name.
///
/// state_dict() is
///
///     {"rule": "Adam",
///      "state": {"net1.0.weight": {"exp_avg": …, "exp_avg_sq": …, "step": 7}, …},
///      "param_groups": [{"name": "0", "params": ["net1.0.bias", …], "lr": 0.001, …}, …]}
///
/// where a parameter that has no state yet is absent from "state". Tensors are views: clone() the
/// dict to keep it.
///
/// A parameter that comes under several names goes by the first of them; a state dict that is
/// loaded may use any.
class NamedOptimizer : public KeyedOptimizer {
 public:
  /// One group with all parameters. NameError where two different ones have the same name.
  NamedOptimizer(const std::vector<NamedParameter>& parameters, const optim::UpdateRule& rule);
  /// The given groups, of parameters that are among `parameters`. NameError for a stranger, or a
  /// parameter that is in two groups; OptionError for an empty group or a bad hyper-parameter.
  /// Parameters in no group stay as they are, which is logged as a warning.
  NamedOptimizer(const std::vector<NamedParameter>& parameters, const optim::UpdateRule& rule,
                 const std::vector<ParamGroupOptions>& groups);

  ParamGroups param_groups() override;
  ConstParamGroups param_groups() const override;
  std::vector<std::string> group_names() const override;
  void add_param_group(const ParamGroupOptions& options) override;
  std::vector<NamedParameter> named_parameters() const override { return known_; }
  void visit_parameters(const std::function<void(const NamedParameter&)>& visit) const override;
  bool contains(const Parameter& parameter) const override {
    return in_group_.contains(parameter.identity());
  }

  StateDict state_dict() const override;
  StateDict wanted() const override;

  /// The rules of PyTorch's _NamedOptimizer: this optimizer must have state already (step() or
  /// init_state()), unless its rule keeps none. A parameter that the source lacks keeps its state;
  /// one that only the source has is ignored. Groups are matched by their sets of names, and take
  /// over the hyper-parameters; a group that the source lacks keeps its own. Slots
  /// (StateError), shapes (ShapeError) and dtypes (DTypeError) must agree exactly.
  LoadReport load_state_dict(const StateDict& source, const LoadOptions& options) override;
  using KeyedOptimizer::load_state_dict;
  LoadReport check_load(const StateDict& source, const LoadOptions& options) const override;
  void init_state() override;

  /// Unlike load_state_dict, wants the same rule, groups and parameters as the source's, and needs
  /// no state of its own: afterwards exactly those slots exist that existed in the source. The
  /// names of the groups stay those that they were given here.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

  bool update(double gradient_scale) override;
  void update(const Parameter& parameter, double gradient_scale) override;

 protected:
  /// Numbers of a parameter, in row-major order.
  struct Share {
    std::int64_t begin = 0, size = 0;

    bool operator==(const Share&) const = default;
  };
  /// Slots of one parameter that has state, where this optimizer is to step another share of it.
  struct MovingSlots {
    NamedParameter parameter;
    std::vector<Tensor*>
        numbers;  ///< of the share of before, to be replaced by those of the new one
  };

  /// A step of one parameter whose gradient comes in pieces.
  struct PiecewiseStep {
    const std::size_t* entry = nullptr;  // in index_, since the steps of others move entries
    std::array<double, optim::UpdateRule::max_scalars> scalars = {};  // as they are before it
    bool fresh = false;
  };
  PiecewiseStep begin_step(const Parameter& parameter);
  /// Steps numbers of this optimizer's share, from number `begin` of the parameter on.
  void step_piece(const PiecewiseStep& step, std::int64_t begin,
                  std::span<const std::byte> gradient, double gradient_scale);
  /// After all pieces, of which there may be none.
  void end_step(const PiecewiseStep& step);

  /// Whether a rule of the groups steps whole parameters only.
  bool steps_whole(const ParamGroup& group) const;
  /// From now on this optimizer steps, and has the state of, a share of each parameter: other ranks have
  /// the rest, and state dicts have TensorParts. `move` is called for each parameter in a group, in the
  /// order of names, that has state. Where it throws, nothing changes.
  void set_shares(const std::function<Share(const Parameter&)>& share_of,
                  const std::function<void(MovingSlots&)>& move);
  /// Takes the last group away again.
  void remove_last_group();

 private:
  struct Slot {
    std::string name;
    Tensor numbers;     // of the share, a window of slot_memory_
    bool live = false;  // whether it means something
  };
  struct Entry {
    Parameter parameter;
    const std::string* name = nullptr;
    Share share;
    std::size_t group = 0;
    std::size_t run = 0;  // the one in runs_ that it is in
    std::int64_t steps = 0;
    std::array<double, optim::UpdateRule::max_scalars> scalars = {1, 1};
    std::vector<Slot> slots;  // those of the rule first
    std::uint64_t layout_epoch = 0;
    bool exists = false;    // whether the parameter has state
    bool arranged = false;  // whether there are slots in a layout as of layout_epoch
    bool live = false;      // whether all slots of the rule are
  };
  /// Entries of one group and dtype whose memory is one range: values, gradients and slots. Where
  /// all of them make each step together, that is one look at the table of their flags and one call
  /// of the rule, and the entries are left alone: their step counts are `ahead` more than they say,
  /// and their scalars those of the first one.
  struct Run {
    std::size_t begin = 0, end = 0;
    std::size_t first_filled = 1, last_filled = 0;  // entries with numbers in their share, if any
    std::shared_ptr<autograd::GradientTable> table =
        nullptr;  // of flags; none for an entry by itself
    std::size_t first_flag = 0;
    std::uint64_t layout_epoch = 0;  // of the table
    bool uniform = false;            // whether all are live, with equal step counts and scalars
    std::int64_t ahead = 0;

    bool has_share() const noexcept { return first_filled <= last_filled; }
  };
  struct Group {
    ParamGroup group;
    optim::UpdateRule* rule;              // the group's own
    std::vector<std::string> slots = {};  // of the rule, when slots were last arranged
  };
  /// What a load is going to do, found out before anything changes.
  struct [[gnu::visibility("hidden")]] LoadPlan;

  void add_group(const ParamGroupOptions& options);
  static void check_sizes(const optim::UpdateRule& rule);
  Entry& entry(const std::string& name) { return entries_[index_.at(name)]; }
  const std::string& name_here(const std::string& name) const;
  Shape slot_shape(const Entry& entry) const;
  static std::int64_t padded_size(const Entry& entry);
  static bool is_next(const Entry& before, const Entry& entry);
  bool continues(const Entry& before, const Entry& entry) const;
  bool slots_changed() const;
  bool layout_changed() const;
  void arrange_slots(const std::function<bool(const Entry&)>& wanted);
  void find_runs();
  void settle(Run& run);
  void settle_all();
  bool start(Entry& entry);
  bool step_entries(Run& run, double gradient_scale);
  Entry& prepare(const Parameter& parameter);
  void step_range(std::size_t begin, std::size_t end, std::int64_t step, bool fresh,
                  double gradient_scale);
  std::int64_t steps_of(const Entry& entry) const;
  double scalar_of(const Entry& entry, std::size_t scalar) const;
  bool keeps_state() const;
  StateValue slot_value(const Entry& entry, const Tensor& numbers) const;
  StateDict entry_state(const Entry& entry) const;
  LoadPlan plan_load(const StateDict& source, const LoadOptions& options) const;
  LoadPlan plan_restore(const StateDict& source) const;
  bool lies_in_slots(const StateDict& state) const;
  void apply(const LoadPlan& plan);

  std::unique_ptr<optim::UpdateRule> defaults_;
  std::vector<NamedParameter> known_;
  std::map<std::string, std::string> aliases_;  // other names, to those in known_
  std::deque<Group> groups_;
  std::map<std::string, std::size_t> index_;     // into entries_, of the parameters in groups
  std::map<const void*, std::string> in_group_;  // names of the same, by identity
  std::vector<Entry> entries_;                   // group by group, each by address
  std::vector<Run> runs_;                        // of entries_, in their order
  std::vector<Tensor> slot_memory_;
  bool is_shared_ = false;  // whether other ranks step the rest of each parameter
};

}  // namespace lockstep

#pragma GCC visibility pop
