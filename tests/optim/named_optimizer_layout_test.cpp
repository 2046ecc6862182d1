// Where parameters lie, and whether they have gradients, must not show in the numbers.

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {
namespace named_optimizer_layout_test {

using namespace testing;
using optim::Adam;
using optim::SGD;

struct CountingOptions {
  double lr = 1;
  std::int64_t limit = 3;
  bool on = true;

  std::vector<optim::Field> fields() { return {{"lr", &lr}, {"limit", &limit}, {"on", &on}}; }
};

// A rule of a user's: slots "total" and "last"; counts how often it is called, and checks what the
// optimizer promises a rule.
class Counting : public optim::BasicRule<Counting, CountingOptions> {
 public:
  explicit Counting(const CountingOptions& options = {}) : BasicRule(options) {}

  std::string_view name() const override { return "Counting"; }
  std::span<const std::string_view> slots() const override {
    static constexpr std::array<std::string_view, 2> names{"total", "last"};
    return names;
  }
  bool counts_steps() const override { return true; }
  void check() const override {
    require(options_.limit > 0, "limit > 0", static_cast<double>(options_.limit));
  }

  template <class T>
  void step(const optim::UpdateRange<T>& range) const {
    ++*calls;
    EXPECT_EQ(range.fresh, range.step == 1);
    EXPECT_EQ(range.slots.size(), 2U);
    for (std::size_t i = 0; i < range.value.size(); ++i) {
      EXPECT_TRUE(!range.fresh || range.slots[0][i] == 0);
      range.slots[0][i] += range.gradient[i];
      range.slots[1][i] = static_cast<T>(range.step);
      if (options_.on) range.value[i] -= static_cast<T>(options_.lr) * range.gradient[i];
    }
  }

  std::shared_ptr<int> calls = std::make_shared<int>(0);  // clones count together
};

// The groups are neighbours in the reducer's layout. What comes of eight steps when a reducer is
// there from step `from` to step `to`, with -1 for before the optimizer is built.
StateDict trained(const optim::UpdateRule& rule, int from, int to) {
  std::vector<NamedParameter> parameters = small_parameters();
  std::unique_ptr<GradientReducer> reducer;
  const auto build = [&] { reducer = std::make_unique<GradientReducer>(parameters, world()); };
  if (from == -1) build();
  NamedOptimizer optimizer(
      parameters, rule,
      {{.params = {parameters[2].parameter, parameters[1].parameter}},
       {.params = {parameters[0].parameter, parameters[3].parameter}, .lr = 0.3}});
  for (int step = 0; step < 8; ++step) {
    if (step == from) build();
    if (step == to) reducer.reset();
    optimizer.zero_grad();
    train(optimizer, parameters, 1, static_cast<std::uint64_t>(step));
  }
  return snapshot(optimizer, parameters);
}

TEST(Layout, a_reducer_built_before_after_or_for_a_while_gives_the_same_bits) {
  const Adam adam({.lr = 0.1, .weight_decay = 0.1});
  const SGD momentum({.lr = 0.1, .momentum = 0.9, .dampening = 0.3});
  const SGD plain({.lr = 0.1});
  for (const optim::UpdateRule* rule :
       std::initializer_list<const optim::UpdateRule*>{&adam, &momentum, &plain}) {
    const StateDict expected = trained(*rule, 99, 99);
    for (const auto& [from, to] : {std::pair{-1, 99}, {0, 99}, {3, 99}, {-1, 5}, {2, 6}}) {
      EXPECT_TRUE(bit_equal(expected, trained(*rule, from, to)))
          << rule->name() << " " << from << " to " << to;
    }
  }
}

TEST(Layout, neighbours_take_one_pass_of_the_rule) {
  std::vector<NamedParameter> parameters = small_parameters();
  parameters.pop_back();
  const GradientReducer reducer(parameters, world());
  const Counting rule;
  NamedOptimizer optimizer(parameters, rule);
  for (int step = 1; step <= 3; ++step) {
    train(optimizer, parameters, 1, static_cast<std::uint64_t>(step));
    EXPECT_EQ(*rule.calls, step);
  }
  // One in the middle that is left out parts its neighbours, and so does another number of steps.
  parameters[1].parameter.zero_grad();
  optimizer.step();
  EXPECT_EQ(*rule.calls, 5);
  train(optimizer, parameters, 1, 4);
  EXPECT_EQ(*rule.calls, 8);
}

TEST(Layout, a_reducer_built_in_the_middle_of_training_makes_neighbours) {
  // In one of the two orders, the parameters' own memory has not the order of the layout.
  for (const bool reversed : {false, true}) {
    std::vector<NamedParameter> parameters = small_parameters();
    parameters.pop_back();
    if (reversed) std::reverse(parameters.begin(), parameters.end());
    const Counting rule;
    NamedOptimizer optimizer(parameters, rule);
    train(optimizer, parameters, 1);
    EXPECT_EQ(*rule.calls, 3);
    const GradientReducer reducer(parameters, world());
    train(optimizer, parameters, 1, 1);
    EXPECT_EQ(*rule.calls, 4) << reversed;
  }
}

TEST(Layout, a_parameter_whose_state_was_loaded_is_not_as_fresh_as_its_neighbour) {
  const SGD rule({.lr = 0.1, .momentum = 0.9, .dampening = 0.5});
  const auto trained = [&](bool flat) {
    std::vector<NamedParameter> parameters = small_parameters();
    std::unique_ptr<GradientReducer> reducer;
    if (flat) reducer = std::make_unique<GradientReducer>(parameters, world());
    NamedOptimizer optimizer(parameters, rule);
    StateDict saved = optimizer.state_dict();
    saved["state"].as_dict()["b"] = StateDict{{"momentum_buffer", Tensor::full({4}, 3)}};
    optimizer.restore(saved);
    train(optimizer, parameters, 2);
    return snapshot(optimizer, parameters);
  };
  EXPECT_TRUE(bit_equal(trained(false), trained(true)));
}

TEST(Layout, without_a_reducer_each_parameter_takes_a_pass) {
  std::vector<NamedParameter> parameters = small_parameters();
  const Counting rule;
  NamedOptimizer optimizer(parameters, rule);
  train(optimizer, parameters, 2);
  EXPECT_EQ(*rule.calls, 8);
}

TEST(Layout, a_user_defined_rule_has_fields_slots_and_steps) {
  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, Counting({.lr = 0.5}));
  ParamGroup& group = optimizer.param_groups()[0];
  EXPECT_EQ(group.get("limit").as_int(), 3);
  group.set({{"limit", 4}});
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        group.set({{"limit", 0}});
      },
      "Counting: expected limit > 0, found 0"));
  EXPECT_TRUE(throws<StateError>([&] { group.set({{"limit", 1.5}}); }, "hyper-parameter 'limit'"));
  EXPECT_EQ(group.get("limit").as_int(), 4);
  train(optimizer, parameters, 2);
  const StateDict state = state_of(optimizer, "a");
  EXPECT_EQ(state.at("step").as_int(), 2);
  EXPECT_TRUE(bit_equal(state.at("last").as_tensor(), Tensor::full({3, 2}, 2)));

  std::vector<NamedParameter> others = small_parameters();
  NamedOptimizer restored(others, Counting());
  restored.restore(optimizer.state_dict());
  EXPECT_TRUE(bit_equal(optimizer.state_dict(), restored.state_dict()));
}

// Two borrowed parameters with a caller's own numbers between them, just where a layout would have
// padding.
TEST(Layout, numbers_between_borrowed_parameters_are_the_callers) {
  alignas(64) std::array<float, 32> field{};
  field.fill(1);
  std::vector<NamedParameter> parameters{
      Parameter("low", Tensor::borrow(std::span<float>(field.data(), 10), {10})),
      Parameter("high", Tensor::borrow(std::span<float>(field.data() + 16, 10), {10}))};
  // In reverse, so that the flat gradients and the field have one order.
  std::swap(parameters[0], parameters[1]);
  const GradientReducer reducer(parameters, world());
  NamedOptimizer optimizer(parameters, SGD({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.5}));
  train(optimizer, parameters, 3);
  EXPECT_EQ(parameters[0].parameter.value().raw(), field.data() + 16);
  for (std::size_t i = 10; i < 16; ++i) EXPECT_EQ(field[i], 1.0F) << i;
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NE(field[i], 1.0F) << i;
}

TEST(Layout, borrowed_parameters_train_as_owned_ones_in_place) {
  std::vector<NamedParameter> expected = small_parameters();
  std::vector<float> b(4), unrelated(4, 7.0F);
  std::vector<double> d(5);
  std::vector<NamedParameter> found = small_parameters();
  found[1] = Parameter("b", Tensor::borrow(b));
  found[3] = Parameter("d", Tensor::borrow(d));
  for (const std::size_t i : {1U, 3U}) {
    found[i].parameter.mutable_value().copy_from(expected[i].parameter.value());
  }
  NamedOptimizer reference(expected, Adam()), optimizer(found, Adam());
  train(reference, expected, 3);
  train(optimizer, found, 2);
  {
    const GradientReducer reducer(found, world());
    train(optimizer, found, 1, 2);
  }
  EXPECT_TRUE(bit_equal(snapshot(reference, expected), snapshot(optimizer, found)));
  EXPECT_EQ(found[1].parameter.value().raw(), b.data());
  EXPECT_EQ(b[0], expected[1].parameter.value().data<float>()[0]);
}

// The step of another parameter puts entries in order anew where its value has moved.
TEST(Layout, pieces_of_a_step_find_their_parameter_when_others_move) {
  struct Pieces : NamedOptimizer {
    using NamedOptimizer::begin_step, NamedOptimizer::step_piece, NamedOptimizer::NamedOptimizer;
  };
  const auto bytes_of = [](const Tensor& numbers) {
    return std::span(static_cast<const std::byte*>(numbers.raw()), numbers.bytes());
  };
  const std::vector<NamedParameter> expected = small_parameters();
  Tensor memory = Tensor::zeros({48});
  const auto copied = [&memory](const Tensor& value, std::int64_t begin) {
    Tensor copy = memory.window(begin, value.shape());
    copy.copy_from(value);
    return copy;
  };
  Parameter a(copied(expected[0].parameter.value(), 16));
  Parameter b(copied(expected[1].parameter.value(), 32));
  const std::vector<NamedParameter> found{{"a", a}, {"b", b}};
  NamedOptimizer reference({expected[0], expected[1]}, Adam());
  Pieces optimizer(found, Adam());
  train(reference, expected, 2);
  train(optimizer, found, 1);
  set_gradients(found, 1);
  const auto step_of_a = optimizer.begin_step(a);
  b.rebind_value(memory.window(0, b.shape()), true);
  const auto step_of_b = optimizer.begin_step(b);
  optimizer.step_piece(step_of_a, 0, bytes_of(a.grad()), 1);
  optimizer.step_piece(step_of_b, 0, bytes_of(b.grad()), 1);
  EXPECT_TRUE(
      bit_equal(snapshot(reference, {expected[0], expected[1]}), snapshot(optimizer, found)));
}

TEST(Layout, a_frozen_parameter_neither_moves_nor_changes_its_state) {
  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, Adam({.weight_decay = 0.1}));
  train(optimizer, parameters, 2);
  Parameter frozen = parameters[1].parameter;
  frozen.set_requires_grad(false);
  const Tensor value = frozen.value().clone();
  const StateDict state = state_of(optimizer, "b").clone();
  const std::int64_t other = state_of(optimizer, "a").at("step").as_int();
  train(optimizer, parameters, 2, 2);
  EXPECT_TRUE(bit_equal(value, frozen.value()));
  EXPECT_TRUE(bit_equal(state, state_of(optimizer, "b")));
  EXPECT_EQ(state_of(optimizer, "a").at("step").as_int(), other + 2);
  frozen.set_requires_grad(true);
  train(optimizer, parameters, 1, 4);
  EXPECT_EQ(state_of(optimizer, "b").at("step").as_int(), state.at("step").as_int() + 1);
}

TEST(Layout, a_parameter_without_a_gradient_is_left_alone) {
  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, SGD({.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1}));
  set_gradients(parameters, 0);
  parameters[0].parameter.zero_grad();
  const Tensor value = parameters[0].parameter.value().clone();
  optimizer.step();
  EXPECT_TRUE(bit_equal(value, parameters[0].parameter.value()));
  EXPECT_TRUE(state_of(optimizer, "a").empty());
  EXPECT_EQ(state_of(optimizer, "b").size(), 1U);
}

TEST(Layout, momentum_that_is_switched_on_starts_from_the_gradient) {
  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, SGD({.lr = 0.1}));
  train(optimizer, parameters, 2);
  EXPECT_TRUE(state_of(optimizer, "a").empty());
  optimizer.param_groups()[0].set({{"momentum", 0.9}, {"dampening", 0.5}});
  train(optimizer, parameters, 1, 2);
  EXPECT_TRUE(bit_equal(state_of(optimizer, "a").at("momentum_buffer").as_tensor(),
                        parameters[0].parameter.grad()));

  // As in PyTorch, a buffer sleeps while momentum is off.
  const Tensor buffer = state_of(optimizer, "a").at("momentum_buffer").as_tensor().clone();
  optimizer.param_groups()[0].set({{"momentum", 0.0}});
  train(optimizer, parameters, 1, 3);
  EXPECT_TRUE(state_of(optimizer, "a").empty());
  optimizer.param_groups()[0].set({{"momentum", 0.9}});
  EXPECT_TRUE(bit_equal(state_of(optimizer, "a").at("momentum_buffer").as_tensor(), buffer));
}

class Greedy : public optim::BasicRule<Greedy, CountingOptions> {
 public:
  Greedy() : BasicRule(CountingOptions()) {}

  std::string_view name() const override { return "Greedy"; }
  std::span<const std::string_view> slots() const override {
    static constexpr std::array<std::string_view, 9> names{"a", "b", "c", "d", "e",
                                                           "f", "g", "h", "i"};
    return std::span(names).first(options_.on ? 9 : 8);
  }
  template <class T>
  void step(const optim::UpdateRange<T>&) const {}
};

TEST(Layout, a_rule_with_too_many_slots_is_refused_and_nothing_changes) {
  std::vector<NamedParameter> parameters = small_parameters();
  const char* message = "Greedy: expected at most 8 slots, found 9";
  EXPECT_TRUE(throws<OptionError>([&] { NamedOptimizer(parameters, Greedy()); }, message));
  Greedy modest;
  modest.set({{"on", false}});
  NamedOptimizer optimizer(parameters, modest);
  train(optimizer, parameters, 1);
  const StateDict before = snapshot(optimizer, parameters);
  optimizer.param_groups()[0].set({{"on", true}});
  EXPECT_TRUE(throws<OptionError>([&] { optimizer.step(); }, message));
  optimizer.param_groups()[0].set({{"on", false}});
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer, parameters)));
}

}  // namespace named_optimizer_layout_test
}  // namespace lockstep
