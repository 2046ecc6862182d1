// Reducers on communicators of some of the ranks, which overlap: against one process that has the
// samples of all members.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm/mpi_counts.hpp"
#include "comm/placements.hpp"
#include "comm/resources.hpp"
#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/batches.hpp"
#include "parallel/rank_groups.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace {

using namespace testing;

const optim::SGD momentum({.lr = 0.1, .momentum = 0.9});

using Groups = std::vector<std::vector<int>>;

Groups halves() {
  const int size = world().size(), half = (size + 1) / 2;
  return size == 1 ? Groups{{0}} : Groups{every(1, 0, half), every(1, half, size)};
}
Groups stripes() {
  const int size = world().size();
  return size == 1 ? Groups{{0}} : Groups{every(2, 0, size), every(2, 1, size)};
}
std::vector<int> all() { return every(1, 0, world().size()); }
std::vector<int> reversed(std::vector<int> list) {
  std::reverse(list.begin(), list.end());
  return list;
}

/// What a rank has in a step: other numbers of rows on each.
Batch batch_of(int rank, std::uint64_t step) {
  return draw_batch(100 * step + static_cast<std::uint64_t>(rank), 2 + rank);
}

/// A model that the members of a group train together. All other ranks know what it comes to as well.
struct Trained {
  Trained(std::vector<int> members, std::uint64_t seed, const CommunicatorOptions& options = {})
      : group(std::move(members), options), model(make_model(seed)), serial(make_model(seed)) {
    if (!group.is_member()) return;
    // The first of the members has the values to begin with.
    if (group.ranks->rank() != 0) model.initialize(seed + 100);
    replica.emplace(model, *group.ranks);
    optimizer.emplace(model.named_parameters(), momentum);
  }

  void zero_grad() {
    if (group.is_member()) optimizer->zero_grad();
    reference.zero_grad();
  }
  void step() {
    if (group.is_member()) optimizer->step();
    reference.step();
  }
  void train(std::uint64_t key) {
    zero_grad();
    double samples = 0;
    for (const int rank : group.members) samples += static_cast<double>(batch_of(rank, key).size());
    for (const int rank : group.members) {
      const Batch batch = batch_of(rank, key);
      (loss_of(serial)(batch) * (static_cast<double>(batch.size()) / samples)).backward();
    }
    if (group.is_member()) {
      replica->backward(batch_of(world().rank(), key), loss_of(model));
    }
    step();
  }
  void expect_as_serial(const std::string& where = "") const {
    SCOPED_TRACE(where);
    if (!group.is_member()) return;
    expect_close_states(model, serial);
    for (const auto& [name, parameter] : model.named_parameters()) {
      Tensor first = parameter.value().clone();
      group.ranks->broadcast_bytes(first.raw(), first.bytes());
      EXPECT_TRUE(bit_equal(first, parameter.value())) << name;
    }
  }

  RankGroup group;
  nn::Sequential model, serial;
  std::optional<DataParallel> replica;
  std::optional<NamedOptimizer> optimizer;
  NamedOptimizer reference{serial.named_parameters(), momentum};
};

TEST(ReducerGroups, train_models_at_the_same_time) {
  for (const Arrangement& arrangement : arrangements()) {
    std::vector<std::unique_ptr<Trained>> models;
    const auto add = [&](const std::vector<int>& members) {
      models.push_back(std::make_unique<Trained>(members, 1 + models.size(), arrangement.options));
    };
    for (const std::vector<int>& members : halves()) add(members);
    add(all());
    for (const std::vector<int>& members : stripes()) add(members);
    add(reversed(all()));
    for (std::uint64_t step = 0; step < 4; ++step) {
      for (const auto& model : models) model->train(step);
      for (auto model = models.rbegin(); model != models.rend(); ++model)
        (*model)->train(10 + step);
    }
    for (const auto& model : models) model->expect_as_serial(arrangement.name);
  }
}

TEST(ReducerGroups, may_be_a_chain_in_which_some_ranks_are_in_two_and_some_in_one) {
  std::vector<std::unique_ptr<Trained>> links;
  for (int rank = 0; rank + 1 < world().size(); ++rank) {
    links.push_back(std::make_unique<Trained>(std::vector<int>{rank + 1, rank}, 1 + rank));
  }
  links.push_back(std::make_unique<Trained>(std::vector<int>{world().size() - 1}, 9));
  for (std::uint64_t step = 0; step < 5; ++step) {
    for (const auto& link : links) link->train(step);
  }
  for (const auto& link : links) link->expect_as_serial();
}

TEST(ReducerGroups, start_from_their_first_member) {
  Trained model(reversed(all()), 5);
  EXPECT_EQ(model.group.ranks->rank(), world().size() - 1 - world().rank());
  model.expect_as_serial();
  const Communicator& ranks = model.replica->communicator();
  // Weights are those of ranks, wherever these are in the group.
  Parameter p("p", Tensor::zeros({2}, DType::f64));
  GradientReducer reducer({p}, ranks);
  reducer.set_weight(world().rank() + 1);
  sum(p * (world().rank() + 1.0)).backward();
  double squares = 0, weights = 0;
  for (int rank = 0; rank < world().size(); ++rank) {
    squares += (rank + 1.0) * (rank + 1.0);
    weights += rank + 1;
  }
  EXPECT_NEAR(p.grad().data<double>()[1], squares / weights, 1e-14);
}

/// A layer that all ranks share, and one after it for each group of ranks.
struct Sharded {
  explicit Sharded(const Groups& groups, const CommunicatorOptions& options = {}) {
    for (std::size_t i = 0; i < groups.size(); ++i) {
      heads.push_back(make_model(20 + i));
      serial_heads.push_back(make_model(20 + i));
      members.emplace_back(groups[i], options);
      if (members[i].is_member()) own = i;
    }
    of_shared.emplace(shared.named_parameters(), everybody);
    of_head.emplace(heads[own].named_parameters(), *members[own].ranks);
    parameters = shared.named_parameters();
    for (auto& [name, parameter] : heads[own].named_parameters()) {
      parameters.emplace_back("head." + name, parameter);
    }
    optimizer.emplace(parameters, momentum);
  }

  static nn::Linear make_shared() {
    nn::Linear layer(4, 4, {.dtype = DType::f64});
    layer.initialize(7);
    return layer;
  }
  static Variable loss(nn::Module& shared, nn::Module& head, const Batch& batch) {
    return mean_squared_error(head(tanh(shared(batch.x))), batch.y);
  }
  Variable own_loss(std::uint64_t step) {
    return loss(shared, heads[own], batch_of(world().rank(), step));
  }
  // Means over the ranks of each, all of which count the same.
  void serial_backward(std::uint64_t step) {
    for (auto& head : serial_heads) head.zero_grad();
    serial_shared.zero_grad();
    for (std::size_t i = 0; i < heads.size(); ++i) {
      for (const int rank : members[i].members) {
        loss(serial_shared, serial_heads[i], batch_of(rank, step)).backward();
      }
      divide(serial_heads[i], members[i].members.size());
    }
    divide(serial_shared, static_cast<std::size_t>(world().size()));
  }
  static void divide(nn::Module& model, std::size_t by) {
    for (Parameter parameter : model.parameters()) {
      for (double& number : parameter.mutable_grad().span<double>()) {
        number /= static_cast<double>(by);
      }
    }
  }
  void expect_close_to_serial(const std::string& where) {
    expect_close_gradients(shared, serial_shared, where);
    expect_close_gradients(heads[own], serial_heads[own], where);
  }

  Communicator everybody = world().duplicate();
  nn::Linear shared = make_shared(), serial_shared = make_shared();
  std::vector<nn::Sequential> heads, serial_heads;
  std::vector<RankGroup> members;
  std::size_t own = 0;
  std::optional<GradientReducer> of_shared, of_head;
  std::vector<NamedParameter> parameters;
  std::optional<NamedOptimizer> optimizer;
};

TEST(ReducerGroups, have_parameters_of_their_own_beside_shared_ones) {
  for (const Arrangement& arrangement : arrangements()) {
    for (const Groups& groups : {halves(), stripes()}) {
      Sharded model(groups, arrangement.options);
      std::vector<NamedOptimizer> references;
      references.emplace_back(model.serial_shared.named_parameters(), momentum);
      for (auto& head : model.serial_heads) {
        references.emplace_back(head.named_parameters(), momentum);
      }
      for (std::uint64_t step = 0; step < 4; ++step) {
        model.optimizer->zero_grad();
        {
          // In turns, one of the two follows later.
          GradientReducer& later = step % 2 == 0 ? *model.of_head : *model.of_shared;
          const auto deferral = step > 0 ? later.no_sync() : nullptr;
          model.own_loss(step).backward();
          if (step > 0) later.finish();
        }
        model.serial_backward(step);
        model.expect_close_to_serial(arrangement.name + ", step " + std::to_string(step));
        model.optimizer->step();
        for (NamedOptimizer& reference : references) reference.step();
      }
      expect_close_states(model.heads[model.own], model.serial_heads[model.own]);
      expect_equal_on_all_ranks(model.shared);
    }
  }
}

TEST(ReducerGroups, share_the_error_of_a_member_with_those_whose_backward_meets_it) {
  for (const Groups& groups : {halves(), stripes()}) {
    Sharded model(groups);
    const auto backward = [&](bool fails) {
      const Variable loss = model.own_loss(1);
      autograd::record(loss.value(), {loss},
                       [fails](const Tensor& gradient, std::span<autograd::GradientSlot> slots) {
                         if (fails) throw std::runtime_error("no derivative");
                         slots[0].pass(gradient);
                       })
          .backward();
    };
    const bool is_culprit = world().rank() == 0;
    if (is_culprit) {
      EXPECT_TRUE(throws<std::runtime_error>([&] { backward(true); }, "no derivative"));
    } else {
      EXPECT_TRUE(throws<Error>([&] { backward(false); }, "no derivative", "(rank 0)"));
    }
    for (const Parameter& parameter : model.shared.parameters()) EXPECT_FALSE(parameter.has_grad());
    // The heads of others may be reduced already, and are so in the group as a whole.
    const bool has_grad = model.heads[model.own].parameters().front().has_grad();
    EXPECT_EQ(model.members[model.own].ranks->all_reduce(std::int64_t{has_grad}),
              has_grad ? model.members[model.own].ranks->size() : 0);
    EXPECT_FALSE(has_grad && model.own == 0);
    model.optimizer->zero_grad();
    backward(false);
    model.serial_backward(1);
    model.expect_close_to_serial("");
  }
}

TEST(ReducerGroups, in_another_order_are_an_error_of_their_group_alone) {
  const std::vector<int> some = halves().front();
  Trained everywhere(all(), 3), within(some, 4), others(halves().back(), 5);
  everywhere.train(1);
  {
    const RankGroup group(some);
    if (group.is_member() && some.size() > 1) {
      Parameter p("p", Tensor::zeros({3})), q("q", Tensor::zeros({3}));
      const GradientReducer of_p({p}, *group.ranks), of_q({q}, *group.ranks);
      const Parameter& reached = world().rank() == some.back() ? q : p;
      EXPECT_TRUE(throws<StateError>([&] { sum(reached).backward(); },
                                     "the ranks do not make the same call"));
    }
  }
  for (Trained* model : {&within, &others, &everywhere}) model->train(2);
  for (const Trained* model : {&within, &others, &everywhere}) model->expect_as_serial();
}

TEST(ReducerGroups, leave_nothing) {
  const MpiCounts before = mpi_counts;
  std::size_t files = 0;
  for (int time = 0; time < 20; ++time) {
    for (const Groups& groups : {halves(), stripes(), Groups{reversed(all())}}) {
      for (const std::vector<int>& members : groups) {
        RankGroup group(members);
        if (!group.is_member()) continue;
        Parameter p("p", Tensor::zeros({1000})), q("q", Tensor::zeros({10}));
        {
          const GradientReducer first({p}, *group.ranks), second({q}, *group.ranks);
          (sum(p) + sum(q)).backward();
        }
        EXPECT_FALSE(p.gradient_owner());
        group.close();
      }
    }
    if (time == 0) files = descriptors();
  }
  EXPECT_EQ(mpi_counts.communicators, before.communicators);
  EXPECT_EQ(mpi_counts.requests, before.requests);
  EXPECT_EQ(mpi_counts.windows, 0);
  EXPECT_EQ(mpi_counts.keyvals, before.keyvals);
  EXPECT_EQ(mpi_counts.world_calls, before.world_calls);
  EXPECT_EQ(descriptors(), files);
  EXPECT_EQ(names_left(), 0U);
}

}  // namespace
}  // namespace lockstep
