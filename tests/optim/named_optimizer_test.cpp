// PyTorch's test_named_optimizer.py, test by test, on several ranks. Each rank draws batches of its
// own. The named optimizer is compared with a plain one, and with golden/named_optimizer.py.

#include "lockstep/optim/named_optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/dummy_model.hpp"
#include "optim/plain_optimizers.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 4);

namespace lockstep {
namespace named_optimizer_test {

using testing::PlainAdam;
using testing::PlainOptimizer;
using testing::PlainSGD;
using testing::throws;
using testing::world;

constexpr double tolerance = 1e-6;  // relative to the largest value of a tensor

void expect_close(const Tensor& found, std::span<const float> expected, const std::string& what) {
  ASSERT_EQ(found.size(), static_cast<std::int64_t>(expected.size())) << what;
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    error = std::max(error, std::abs(static_cast<double>(found.data<float>()[i]) - expected[i]));
  }
  EXPECT_LE(error, tolerance * largest) << what;
}

class NamedOptimizerTest : public ::testing::Test {
 protected:
  NamedOptimizerTest() {
    std::ifstream file(LOCKSTEP_GOLDEN_DIR "/named_optimizer.json");
    golden_ = nlohmann::json::parse(file);
    for (const NamedParameter& named : model_.named_parameters()) names_.push_back(named.name);
  }

  std::size_t index_of(const std::string& name) const {
    return static_cast<std::size_t>(std::find(names_.begin(), names_.end(), name) - names_.begin());
  }

  // The two groups that most of the tests have: net1 with the defaults, net3 with another rate.
  std::vector<ParamGroupOptions> two_groups() {
    return {{.params = model_.net1.parameters()}, {.params = model_.net3.parameters(), .lr = 1e-3}};
  }
  static PlainSGD plain_two_groups() {
    PlainSGD plain;
    plain.groups = {{{0, 1}, 1e-2, 0.9}, {{4, 5}, 1e-3, 0.9}};
    return plain;
  }
  static PlainSGD plain_all(double momentum) {
    PlainSGD plain;
    plain.groups = {{{0, 1, 2, 3, 4, 5, 6, 7}, 1e-2, momentum}};
    return plain;
  }

  void train(const std::vector<PlainOptimizer*>& plain, const std::vector<KeyedOptimizer*>& named) {
    for (int i = 0; i < 2; ++i) {
      const Tensor batch = testing::dummy_batch(++iteration_, world().rank());
      sum(plain_model_(batch)).backward();
      plain_parameters_.accumulate();
      for (PlainOptimizer* optimizer : plain) optimizer->step(plain_parameters_);

      sum(replica_(batch)).backward();
      for (KeyedOptimizer* optimizer : named) optimizer->step();
    }
  }

  void expect_same_groups(const PlainOptimizer& plain, const KeyedOptimizer& named) {
    ASSERT_EQ(plain.groups.size(), named.param_groups().size());
    for (std::size_t g = 0; g < plain.groups.size(); ++g) {
      const ParamGroup& group = named.param_groups()[g];
      EXPECT_EQ(group.lr(), plain.groups[g].lr);
      if (dynamic_cast<const PlainSGD*>(&plain) != nullptr) {
        EXPECT_EQ(group.get("momentum").as_double(), plain.groups[g].momentum);
      } else {
        EXPECT_EQ(group.get("beta1").as_double(), 0.9);
        EXPECT_EQ(group.get("beta2").as_double(), 0.999);
        EXPECT_EQ(group.get("eps").as_double(), 1e-8);
      }
      EXPECT_EQ(group.get("weight_decay").as_double(), 0);
      ASSERT_EQ(group.parameters().size(), plain.groups[g].members.size());
      std::vector<std::string> names;
      for (std::size_t i = 0; i < group.parameters().size(); ++i) {
        const std::size_t index = plain.groups[g].members[i];
        const auto& [name, parameter] = group.parameters()[i];
        names.push_back(names_[index]);
        EXPECT_EQ(name, names_[index]);
        expect_close(parameter.value(),
                     {plain_parameters_.value(index), static_cast<std::size_t>(parameter.size())},
                     name);
      }
      std::sort(names.begin(), names.end());
      const StateDict saved = named.state_dict().at("param_groups").as_list()[g].as_dict();
      EXPECT_EQ(saved.at("lr").as_double(), plain.groups[g].lr);
      for (std::size_t i = 0; i < names.size(); ++i) {
        EXPECT_EQ(saved.at("params").as_list().at(i).as_string(), names[i]);
      }
    }
  }

  // That the optimizer has state for those parameters that the plain one has it for, and the same.
  void expect_same_state(const PlainSGD& plain, const KeyedOptimizer& named) {
    const StateDict saved = named.state_dict();
    const StateDict& state = saved.at("state").as_dict();
    EXPECT_EQ(state.size(), plain.momentum_buffer.size());
    for (const auto& [index, momentum_buffer] : plain.momentum_buffer) {
      const StateDict& slots = state.at(names_[index]).as_dict();
      EXPECT_EQ(slots.size(), 1U);
      expect_close(slots.at("momentum_buffer").as_tensor(), momentum_buffer, names_[index]);
    }
  }
  void expect_same_state(const PlainAdam& plain, const KeyedOptimizer& named) {
    const StateDict saved = named.state_dict();
    const StateDict& state = saved.at("state").as_dict();
    EXPECT_EQ(state.size(), plain.exp_avg.size());
    for (const auto& [index, exp_avg] : plain.exp_avg) {
      const StateDict& slots = state.at(names_[index]).as_dict();
      EXPECT_EQ(slots.size(), 3U);
      EXPECT_EQ(slots.at("step").as_int(), plain.steps);
      expect_close(slots.at("exp_avg").as_tensor(), exp_avg, names_[index]);
      expect_close(slots.at("exp_avg_sq").as_tensor(), plain.exp_avg_sq.at(index), names_[index]);
    }
  }

  // The model and the state of the optimizers are what PyTorch had after a phase of training, and
  // the same bits on all ranks.
  void expect_golden(const std::string& test, std::size_t phase,
                     const std::vector<KeyedOptimizer*>& optimizers) {
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, value] : model_.state_dict()) tensors[name] = value.as_tensor();
    for (const KeyedOptimizer* optimizer : optimizers) {
      const StateDict saved = optimizer->state_dict();
      for (const auto& [name, slots] : saved.at("state").as_dict()) {
        for (const auto& [slot, value] : slots.as_dict()) {
          if (slot != "step") tensors[name + "/" + slot] = value.as_tensor();
        }
      }
    }
    const nlohmann::json& expected = golden_.at(test).at(std::to_string(world().size())).at(phase);
    ASSERT_EQ(tensors.size(), expected.size());
    for (auto& [name, tensor] : tensors) {
      ASSERT_TRUE(expected.contains(name)) << name;
      expect_summary(tensor, expected.at(name).get<std::vector<double>>(), name);
      Tensor first = tensor.clone();
      world().broadcast(first.span<float>());
      EXPECT_TRUE(bit_equal(first, tensor)) << name << " differs from rank 0";
    }
  }

  static void expect_summary(const Tensor& tensor, const std::vector<double>& expected,
                             const std::string& name) {
    const std::span<const float> values = tensor.span<float>();
    double largest = 0, total = 0, squares = 0;
    for (const double value : values) {
      largest = std::max(largest, std::abs(value));
      total += value;
      squares += value * value;
    }
    const auto count = static_cast<double>(values.size());
    const double bound = tolerance * expected[0];
    EXPECT_NEAR(largest, expected[0], bound) << name;
    EXPECT_NEAR(total, expected[1], bound * count) << name;
    EXPECT_NEAR(squares, expected[2], 2 * bound * expected[0] * count) << name;
    const std::size_t stride = std::max<std::size_t>(1, values.size() / 6);
    for (std::size_t i = 3; i < expected.size(); ++i) {
      EXPECT_NEAR(values[(i - 3) * stride], expected[i], bound) << name;
    }
  }

  nlohmann::json golden_;
  testing::DummyModel plain_model_;
  testing::PlainParameters plain_parameters_{plain_model_.parameters(), world().handle()};
  // Other ranks than 0 start elsewhere, until DataParallel gives them the values of rank 0.
  testing::DummyModel model_{100 * static_cast<std::uint64_t>(world().rank())};
  DataParallel replica_{model_, world()};
  std::vector<std::string> names_;
  int iteration_ = 0;
};

TEST_F(NamedOptimizerTest, state_dict) {
  PlainSGD plain = plain_all(0.9);
  NamedOptimizer named(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}));
  expect_same_groups(plain, named);

  train({&plain}, {&named});
  expect_same_groups(plain, named);
  expect_same_state(plain, named);
  expect_golden("state_dict", 0, {&named});
}

TEST_F(NamedOptimizerTest, state_dict_multi_param_group) {
  PlainSGD plain_1 = plain_two_groups();
  PlainAdam plain_2;
  plain_2.groups = {{{2, 3}}, {{6, 7}, 1e-5}};
  NamedOptimizer named_1(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}),
                         two_groups());
  NamedOptimizer named_2(
      model_.named_parameters(), optim::Adam(),
      {{.params = model_.net2.parameters()}, {.params = model_.net4.parameters(), .lr = 1e-5}});
  expect_same_groups(plain_1, named_1);
  expect_same_groups(plain_2, named_2);

  train({&plain_1, &plain_2}, {&named_1, &named_2});
  expect_same_groups(plain_1, named_1);
  expect_same_groups(plain_2, named_2);
  expect_same_state(plain_1, named_1);
  expect_same_state(plain_2, named_2);
  expect_golden("state_dict_multi_param_group", 0, {&named_1, &named_2});
}

TEST_F(NamedOptimizerTest, load_state_dict) {
  PlainSGD plain_1 = plain_all(0.9);
  NamedOptimizer named_1(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}));
  train({&plain_1}, {&named_1});
  expect_golden("load_state_dict", 0, {&named_1});
  const StateDict to_load = named_1.state_dict();

  PlainSGD plain_2 = plain_all(0.6);
  NamedOptimizer named_2(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.6}));
  train({&plain_2}, {&named_2});
  expect_same_state(plain_2, named_2);
  expect_golden("load_state_dict", 1, {&named_2});
  const StateDict before_load = named_2.state_dict();
  for (const std::string& name : names_) {
    EXPECT_FALSE(bit_equal(to_load.at("state").as_dict().at(name),
                           before_load.at("state").as_dict().at(name)))
        << name;
  }

  named_2.load_state_dict(to_load);
  EXPECT_TRUE(bit_equal(to_load, named_2.state_dict()));
  plain_2 = plain_1;
  expect_same_groups(plain_2, named_2);
  expect_same_state(plain_2, named_2);

  train({&plain_2}, {&named_2});
  expect_same_groups(plain_2, named_2);
  expect_same_state(plain_2, named_2);
  expect_golden("load_state_dict", 2, {&named_2});
}

TEST_F(NamedOptimizerTest, load_state_dict_conditional_training) {
  PlainSGD plain_1 = plain_two_groups();
  NamedOptimizer named_1(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}),
                         two_groups());
  train({&plain_1}, {&named_1});
  expect_golden("load_state_dict_conditional_training", 0, {&named_1});
  const StateDict to_load = named_1.state_dict();

  PlainSGD plain_2 = plain_all(0.6);
  NamedOptimizer named_2(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.6}));
  train({&plain_2}, {&named_2});
  expect_golden("load_state_dict_conditional_training", 1, {&named_2});

  named_2.load_state_dict(to_load);
  const StateDict after_load = named_2.state_dict();
  for (const auto& [name, slots] : to_load.at("state").as_dict()) {
    EXPECT_TRUE(bit_equal(slots, after_load.at("state").as_dict().at(name))) << name;
  }
  for (const auto& [index, momentum_buffer] : plain_1.momentum_buffer) {
    plain_2.momentum_buffer[index] = momentum_buffer;
  }
  expect_same_groups(plain_2, named_2);
  expect_same_state(plain_2, named_2);

  train({&plain_2}, {&named_2});
  expect_same_groups(plain_2, named_2);
  expect_same_state(plain_2, named_2);
  expect_golden("load_state_dict_conditional_training", 2, {&named_2});
}

TEST_F(NamedOptimizerTest, load_state_dict_error) {
  PlainSGD plain = plain_all(0.9);
  NamedOptimizer named_1(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}));
  train({&plain}, {&named_1});
  expect_same_groups(plain, named_1);
  const StateDict to_load = named_1.state_dict();

  NamedOptimizer named_2(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.6}));
  const StateDict before = named_2.state_dict().clone();
  EXPECT_TRUE(throws<StateError>(
      [&] { named_2.load_state_dict(to_load); },
      "Expects the optim to be initialized before load but found not initialized"));
  EXPECT_TRUE(bit_equal(before, named_2.state_dict()));
  expect_golden("load_state_dict", 0, {&named_1});
}

TEST_F(NamedOptimizerTest, add_param_group) {
  PlainSGD plain = plain_two_groups();
  NamedOptimizer named(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}),
                       two_groups());
  train({&plain}, {&named});
  expect_same_groups(plain, named);
  expect_golden("add_param_group", 0, {&named});

  plain.groups.push_back({{2, 3}, 1e-5, 0.9});
  named.add_param_group({.params = model_.net2.parameters(), .lr = 1e-5});
  train({&plain}, {&named});
  expect_same_groups(plain, named);
  expect_golden("add_param_group", 1, {&named});

  plain.groups.push_back({{6}, 1e-3, 0.9});
  named.add_param_group({.params = model_.net4.at<nn::Linear>(1).weight, .lr = 1e-3});
  train({&plain}, {&named});
  expect_same_groups(plain, named);
  expect_same_state(plain, named);
  expect_golden("add_param_group", 2, {&named});
}

TEST_F(NamedOptimizerTest, add_param_group_error) {
  NamedOptimizer named(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}),
                       two_groups());
  const StateDict before = named.state_dict().clone();
  const Parameter stranger(Tensor::full({8, 1}, 1));
  EXPECT_TRUE(throws<NameError>([&] { named.add_param_group({.params = {stranger}, .lr = 1e-5}); },
                                "some parameters are not in the module"));
  EXPECT_TRUE(bit_equal(before, named.state_dict()));
}

TEST_F(NamedOptimizerTest, init_state) {
  NamedOptimizer named(model_.named_parameters(), optim::SGD({.lr = 1e-2, .momentum = 0.9}),
                       two_groups());
  const nn::Linear& first = model_.net1.at<nn::Linear>(0);
  EXPECT_FALSE(first.weight.has_grad());
  EXPECT_TRUE(named.state_dict().at("state").as_dict().empty());
  const StateDict values = model_.state_dict().clone();

  named.init_state();
  EXPECT_TRUE(first.weight.has_grad());
  EXPECT_TRUE(model_.net3.bias.has_grad());
  const StateDict saved = named.state_dict();
  const StateDict& state = saved.at("state").as_dict();
  EXPECT_EQ(state.size(), 4U);
  for (const char* name : {"net1.0.weight", "net1.0.bias", "net3.weight", "net3.bias"}) {
    const Tensor& buffer = state.at(name).as_dict().at("momentum_buffer").as_tensor();
    EXPECT_TRUE(bit_equal(buffer, Tensor::zeros(buffer.shape()))) << name;
  }
  EXPECT_TRUE(bit_equal(values, model_.state_dict()));
}

}  // namespace named_optimizer_test
}  // namespace lockstep
