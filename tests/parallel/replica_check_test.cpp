#include "lockstep/parallel/replica_check.hpp"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/state/scalars.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace replica_check_test {

using testing::throws;
using testing::world;

struct Model : nn::Module {
  nn::Linear hidden{4, 8}, out{8, 2};
  nn::Dropout dropout{0.5};
  Tensor mean = Tensor::zeros({3}, DType::f64);

  void visit(nn::Visitor& visitor) override {
    visitor("hidden", hidden);
    visitor("out", out);
    visitor("dropout", dropout);
    visitor("mean", mean);
  }
  Variable forward(const Variable& x) override { return out(dropout(tanh(hidden(x)))); }
};

struct Batch {
  Tensor x;
  std::int64_t size() const { return x.shape()[0]; }
  Batch slice(std::int64_t begin, std::int64_t end) const { return {x.rows(begin, end)}; }
};

class ReplicaCheckTest : public ::testing::Test {
 protected:
  // A step of training; the last of several ranks has no samples.
  void train() {
    const std::int64_t rows = world().size() - 1 - world().rank() + (world().size() == 1 ? 1 : 0);
    Tensor x = Tensor::empty({3 * rows, 4});
    fill_uniform(x, RandomKey(static_cast<std::uint64_t>(world().rank())), -1, 1);
    optimizer_.zero_grad();
    replica_.backward(Batch{x}, [&](const Batch& batch) { return mean(model_(batch.x)); });
    optimizer_.step();
  }

  Tensor slot(const std::string& parameter, const std::string& name) const {
    const StateDict state = optimizer_.state_dict();
    return state.at("state").as_dict().at(parameter).as_dict().at(name).as_tensor();
  }

  // The StateError of a call, which all ranks must throw alike; empty where there is none.
  template <class Call>
  static std::string error_of_all(Call&& call) {
    std::string message;
    try {
      call();
    } catch (const StateError& error) {
      EXPECT_TRUE(error.collective());
      message = error.what();
    }
    std::string of_root = message;
    world().broadcast(of_root);
    EXPECT_EQ(message, of_root);
    return message;
  }

  // Lets each rank in turn differ by what `change` does there and again undoes.
  template <class Change>
  void expect_found(Change&& change, const std::string& entry) {
    for (int culprit = 0; culprit < world().size() && world().size() > 1; ++culprit) {
      const bool is_me = world().rank() == culprit;
      if (is_me) change();
      const std::string message = error_of_all([&] { check_.check(); });
      const int odd = world().size() == 2 ? 1 : culprit;
      const auto part = fmt::format("'{}' on rank {} differs from rank", entry, odd);
      EXPECT_NE(message.find(part), std::string::npos) << message;
      EXPECT_EQ(message.find(';'), std::string::npos) << message;
      if (is_me) change();
      check_.check();
    }
  }

  Model model_;
  DataParallel replica_{model_, world()};
  NamedOptimizer optimizer_{model_.named_parameters(), optim::Adam()};
  ReplicaCheck check_{world(), {{"model", model_}, {"optimizer", optimizer_}}, {.every = 3}};
};

void flip_bit(Tensor tensor) { *static_cast<unsigned char*>(tensor.raw()) ^= 1; }

TEST_F(ReplicaCheckTest, finds_nothing_in_replicas_whose_random_numbers_differ) {
  for (int step = 0; step < 7; ++step) {
    train();
    check_.step();
  }
  EXPECT_EQ(check_.steps(), 7);
  EXPECT_EQ(check_.state_dict().at("last_alike").as_int(), 6);
}

TEST_F(ReplicaCheckTest, finds_a_bit_of_a_parameter) {
  train();
  expect_found([&] { flip_bit(model_.hidden.weight.value()); }, "model/hidden.weight");
}

TEST_F(ReplicaCheckTest, finds_a_bit_of_a_buffer) {
  expect_found([&] { flip_bit(model_.mean); }, "model/mean");
}

TEST_F(ReplicaCheckTest, finds_a_bit_of_a_slot) {
  train();
  expect_found([&] { flip_bit(slot("out.bias", "exp_avg_sq")); },
               "optimizer/state/out.bias/exp_avg_sq");
}

TEST_F(ReplicaCheckTest, finds_a_hyper_parameter) {
  expect_found(
      [&] {
        ParamGroup& group = optimizer_.param_groups()[0];
        group.set_lr(0.003 - group.lr());
      },
      "optimizer/param_groups/0/lr");
}

TEST_F(ReplicaCheckTest, finds_a_zero_of_another_sign_and_takes_a_nan_for_itself) {
  model_.mean.fill(std::nan(""));
  check_.check();
  model_.mean.fill(0);
  expect_found([&] { model_.mean.fill(std::signbit(model_.mean.data<double>()[0]) ? 0.0 : -0.0); },
               "model/mean");
}

TEST_F(ReplicaCheckTest, finds_a_slot_that_one_rank_lacks) {
  if (world().size() == 1) return;
  const bool last = world().rank() == world().size() - 1;
  Parameter bias = model_.hidden.bias;
  bias.mutable_grad().fill(0);  // leaves the value as it is
  if (!last) optimizer_.step_parameter(bias);
  const std::string message = error_of_all([&] { check_.check(); });
  const std::string path = "optimizer/state/hidden.bias";
  const std::string rest = fmt::format("is missing on rank {}, unlike rank", world().size() - 1);
  for (const char* entry : {"", "/exp_avg", "/exp_avg_sq"}) {
    EXPECT_NE(message.find(fmt::format("'{}{}' {}", path, entry, rest)), std::string::npos)
        << message;
  }
  EXPECT_NE(message.find("; 1 other"), std::string::npos) << message;  // the number of steps
  if (last) optimizer_.step_parameter(bias);
  check_.check();
}

TEST_F(ReplicaCheckTest, says_on_all_ranks_what_differs_where_and_since_when) {
  if (world().size() == 1) return;
  const bool last = world().rank() == world().size() - 1;
  if (last) flip_bit(model_.mean);
  const std::string where = world().size() == 2   ? "on rank 1 differs from rank 0"
                            : world().size() == 3 ? "on rank 2 differs from ranks 0, 1"
                                                  : "on rank 3 differs from ranks 0, 1, 2";
  EXPECT_EQ(error_of_all([&] { check_.check(); }),
            fmt::format("the replicas differ at step 0, and may have since the start: "
                        "'model/mean' {}",
                        where));
  if (last) flip_bit(model_.mean);
  for (int step = 0; step < 4; ++step) {
    train();
    check_.step();
  }
  if (last) {
    flip_bit(model_.hidden.bias.value());
    flip_bit(model_.mean);
  }
  check_.step();
  const auto expected = fmt::format(
      "the replicas differ at step 6, and may have since step 4: 'model/hidden.bias' {}; "
      "'model/mean' {}",
      where, where);
  EXPECT_EQ(error_of_all([&] { check_.step(); }), expected);
  EXPECT_EQ(check_.steps(), 5);
  if (last) {
    flip_bit(model_.hidden.bias.value());
    flip_bit(model_.mean);
  }
  check_.step();
  EXPECT_EQ(check_.steps(), 6);
  if (last) flip_bit(model_.mean);
  EXPECT_NE(error_of_all([&] { check_.check(); }).find("at step 6, and may have since step 6:"),
            std::string::npos);
}

TEST_F(ReplicaCheckTest, finds_a_rank_that_has_made_more_steps) {
  if (world().size() == 1) return;
  check_.step();
  if (world().rank() == 0) check_.step();
  const std::string message = error_of_all([&] { check_.check(); });
  EXPECT_NE(message.find("'steps of the replica check' on rank"), std::string::npos) << message;
}

TEST_F(ReplicaCheckTest, goes_on_from_its_state) {
  for (int step = 0; step < 4; ++step) check_.step();
  ReplicaCheck resumed(world(), {{"model", model_}}, {.every = 3});
  resumed.restore(check_.state_dict());
  EXPECT_EQ(resumed.steps(), 4);
  for (int step = 0; step < 2; ++step) resumed.step();
  EXPECT_EQ(resumed.state_dict().at("last_alike").as_int(), 6);
  const StateDict before = resumed.state_dict();
  const auto refused = [&](const StateDict& source) {
    EXPECT_THROW(resumed.restore(source), StateError);
    return throws<StateError>([&] { resumed.check_restore(source); }, "last_alike <= steps");
  };
  EXPECT_TRUE(refused({{"steps", 3}, {"last_alike", 4}}));
  EXPECT_TRUE(refused({{"steps", 3}, {"last_alike", -2}}));
  EXPECT_TRUE(refused({{"steps", -1}, {"last_alike", -1}}));
  EXPECT_TRUE(throws<NameError>([&] { resumed.restore({{"steps", 3}}); }, "last_alike"));
  EXPECT_TRUE(bit_equal(before, resumed.state_dict()));
}

TEST_F(ReplicaCheckTest, refuses_what_is_not_to_be_on_all_ranks) {
  using Items = std::vector<ReplicaCheck::Item>;
  const bool last = world().rank() == world().size() - 1;
  const Items items{{"model", model_}};
  const auto make = [&](const Items& some, std::int64_t every) {
    return [&some, every] { const ReplicaCheck check(world(), some, {.every = every}); };
  };
  EXPECT_TRUE(throws<OptionError>(make(items, last ? 0 : 5), "expected every >= 1, found 0"));
  EXPECT_TRUE(throws<OptionError>(make(last ? Items{} : items, 5), "no items"));
  const Items twice{{"model", model_}, {"model", optimizer_}};
  EXPECT_TRUE(throws<NameError>(make(last ? twice : items, 5), "two items", "'model'"));
  if (world().size() == 1) return;
  EXPECT_TRUE(throws<OptionError>(make(items, last ? 4 : 5), "differently: 'every' on rank"));
  const Items other{{"network", model_}};
  EXPECT_TRUE(throws<OptionError>(make(last ? other : items, 5), "'item model' is missing on rank",
                                  "'item network' is only on rank"));
}

TEST_F(ReplicaCheckTest, does_not_depend_on_the_order_of_items) {
  using Items = std::vector<ReplicaCheck::Item>;
  const Items items{{"model", model_}, {"optimizer", optimizer_}};
  const Items reversed{items[1], items[0]};
  ReplicaCheck check(world(), world().rank() == 0 ? items : reversed);
  check.check();
}

}  // namespace replica_check_test
}  // namespace lockstep
