// Random parameters, groups and sequences of calls: whatever happened before, what is saved can be
// restored to the bit, training goes on from it in the same way, and a call that fails changes
// nothing.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/all_rules.hpp"
#include "optim/small_parameters.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {
namespace named_optimizer_property_test {

using namespace testing;

class Story {
 public:
  explicit Story(std::uint64_t seed) : key_(seed) {
    const std::uint64_t count = 3 + below(5);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto extent = static_cast<std::int64_t>(1 + below(20));
      const Shape shape = below(2) == 0 ? Shape{extent} : Shape{extent, 3};
      const DType dtype = below(3) == 0 ? DType::f64 : DType::f32;
      parameters_.push_back({Parameter("p" + std::to_string(i), drawn(i, shape, dtype))});
    }
    const auto rules = all_rules();
    rule_ = rules[below(rules.size())]->clone();
    rule_->set({{"lr", 0.1}});
    next_group_ = 1 + below(count);
    groups_ = {below(next_group_) + 1, next_group_};
    optimizer_ = build(parameters_);
  }

  void run(int calls) {
    for (int i = 0; i < calls; ++i) {
      act();
      if (::testing::Test::HasFailure()) return;
    }
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return key_.below(bound, drawn_++); }
  Parameter any() { return parameters_[below(parameters_.size())].parameter; }

  // Parameters of a group are those up to its end that no group before has.
  std::unique_ptr<NamedOptimizer> build(const std::vector<NamedParameter>& parameters) const {
    std::vector<ParamGroupOptions> groups;
    std::size_t begin = 0;
    for (const std::uint64_t end : groups_) {
      std::vector<Parameter> members;
      for (; begin < end; ++begin) members.push_back(parameters[begin].parameter);
      if (!members.empty()) groups.push_back({.params = members});
    }
    return std::make_unique<NamedOptimizer>(parameters, *rule_, groups);
  }

  void act() {
    switch (below(10)) {
      case 0:
        return step();
      case 1:
        return step();
      case 2:
        return any().set_requires_grad(below(2) == 0);
      case 3:
        return add_group();
      case 4:
        return change_hyper_parameters();
      case 5:
        return reload();
      case 6:
        return fail();
      case 7:
        return move_memory();
      case 8:
        return load_renamed();
      default:
        return restore_elsewhere();
    }
  }

  void step() {
    set_gradients(parameters_, drawn_++);
    while (below(2) == 0) any().zero_grad();
    optimizer_->step({.allow_none = true});
  }

  void add_group() {
    if (next_group_ == parameters_.size()) return;
    const std::uint64_t end = next_group_ + 1 + below(parameters_.size() - next_group_);
    std::vector<Parameter> members;
    while (next_group_ < end) members.push_back(parameters_[next_group_++].parameter);
    groups_.push_back(end);
    optimizer_->add_param_group({.params = members});
  }

  bool has_field(std::string_view name) const { return rule_->options().contains(name); }

  // Among them those that decide which slots there are.
  void change_hyper_parameters() {
    const ParamGroups groups = optimizer_->param_groups();
    ParamGroup& group = groups[below(groups.size())];
    group.set_lr(0.05);
    if (has_field("weight_decay")) {
      group.set({{"weight_decay", 0.01 * static_cast<double>(below(5))}});
    }
    for (const char* name : {"amsgrad", "centered", "adapt", "maximize"}) {
      if (has_field(name)) group.set({{name, below(2) == 0}});
    }
    if (has_field("momentum")) group.set({{"momentum", below(2) == 0 ? 0.0 : 0.8}});
  }

  void reload() {
    const StateDict before = snapshot(*optimizer_, parameters_);
    const StateDict saved = optimizer_->state_dict().clone();
    if (below(2) == 0) {
      // Something else is there in between.
      const std::uint64_t other = drawn_++;
      std::vector<Tensor> values;
      for (const NamedParameter& named : parameters_)
        values.push_back(named.parameter.value().clone());
      set_gradients(parameters_, other);
      optimizer_->step({.allow_none = true});
      for (std::size_t i = 0; i < values.size(); ++i) {
        parameters_[i].parameter.mutable_value().copy_from(values[i]);
      }
      optimizer_->restore(saved);
    } else if (!saved.at("state").as_dict().empty()) {
      optimizer_->load_state_dict(saved);
    }
    EXPECT_TRUE(bit_equal(before, snapshot(*optimizer_, parameters_)));
  }

  void fail() {
    const StateDict before = snapshot(*optimizer_, parameters_);
    StateDict saved = optimizer_->state_dict().clone();
    saved["param_groups"].as_list().back().as_dict()["lr"] = -1.0;
    EXPECT_THROW(optimizer_->restore(saved), OptionError);
    EXPECT_THROW(optimizer_->load_state_dict(saved), Error);
    EXPECT_THROW(optimizer_->add_param_group({.params = parameters_[0].parameter}), NameError);
    EXPECT_THROW(optimizer_->param_groups().back().set({{"maximize", true}, {"lr", NAN}}),
                 OptionError);
    EXPECT_THROW(optimizer_->add_param_group({.params = "q*"}), NameError);
    saved = optimizer_->state_dict().clone();
    StateDict& states = saved["state"].as_dict();
    if (!states.empty()) {
      std::prev(states.end())->second.as_dict()["surplus"] = 1;
      EXPECT_THROW(optimizer_->restore(saved), StateError);
      EXPECT_THROW(optimizer_->load_state_dict(saved), StateError);
    }
    EXPECT_TRUE(bit_equal(before, snapshot(*optimizer_, parameters_)));
  }

  void move_memory() {
    const StateDict before = snapshot(*optimizer_, parameters_);
    if (reducer_ != nullptr) {
      reducer_.reset();
    } else {
      reducer_ = std::make_unique<GradientReducer>(parameters_, world());
    }
    EXPECT_TRUE(bit_equal(before, snapshot(*optimizer_, parameters_)));
  }

  // Other parameters of the same values, with a prefix to their names.
  std::vector<NamedParameter> copies(const std::string& prefix) const {
    std::vector<NamedParameter> copies;
    for (const auto& [name, parameter] : parameters_) {
      copies.emplace_back(prefix + name, Parameter(parameter.value().clone()));
      copies.back().parameter.set_requires_grad(parameter.requires_grad());
    }
    return copies;
  }

  // What is loaded under other names, and given back under the first, is what there was.
  void load_renamed() {
    const StateDict saved = optimizer_->state_dict().clone();
    const std::vector<NamedParameter> renamed = copies("renamed.");
    const std::unique_ptr<NamedOptimizer> other = build(renamed);
    for (std::size_t i = 0; i < other->param_groups().size(); ++i) {
      StateDict fields = optimizer_->param_groups()[i].hyper_parameters().options();
      other->param_groups()[i].set(fields);
    }
    train(*other, renamed, 1, drawn_++);
    if (other->state_dict().at("state").as_dict().empty()) return;
    const auto there = [](const std::string& name) { return "renamed." + name; };
    const LoadReport report = other->load_state_dict(saved, {.strict = true, .rename = {there}});
    EXPECT_EQ(report.loaded.size(), saved.at("state").as_dict().size());
    const StateDict found = other->state_dict();
    for (const auto& [name, state] : saved.at("state").as_dict()) {
      EXPECT_TRUE(bit_equal(state, found.at("state").as_dict().at(there(name)))) << name;
    }
    StateDict before = snapshot(*other, renamed);
    EXPECT_THROW(other->load_state_dict(saved, {.strict = true}), StateError);
    EXPECT_TRUE(bit_equal(before, snapshot(*other, renamed)));
  }

  // Another optimizer goes on as this one does.
  void restore_elsewhere() {
    std::vector<NamedParameter> copies = this->copies("");
    const std::unique_ptr<NamedOptimizer> other = build(copies);
    other->restore(optimizer_->state_dict());
    const std::uint64_t seed = drawn_++;
    train(*optimizer_, parameters_, 2, seed);
    train(*other, copies, 2, seed);
    EXPECT_TRUE(bit_equal(snapshot(*optimizer_, parameters_), snapshot(*other, copies)));
  }

  RandomKey key_;
  std::uint64_t drawn_ = 0;
  std::vector<NamedParameter> parameters_;
  std::unique_ptr<optim::UpdateRule> rule_;
  std::vector<std::uint64_t> groups_;  // where each ends
  std::uint64_t next_group_ = 0;       // the first parameter in no group
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<NamedOptimizer> optimizer_;
};

TEST(Property, any_sequence_of_calls_can_be_saved_and_failures_change_nothing) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Story(seed).run(25);
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace named_optimizer_property_test
}  // namespace lockstep
