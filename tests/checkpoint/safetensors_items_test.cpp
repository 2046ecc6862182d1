// The items of a checkpoint in a safetensors file, and back: what lockstep convert does.
#include <map>
#include <string>
#include <utility>

#include "checkpoint/safetensors_items.hpp"
#include "checkpoint/safetensors_optimizer.hpp"
#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/lbfgs.hpp"
#include "lockstep/optim/nadam.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep::checkpoint {
namespace safetensors_items_test {

using testing::SharedFolder;
using testing::Training;
using testing::world;

// What a checkpoint of these items becomes by way of a safetensors file.
void through_safetensors(const SharedFolder& folder) {
  world().agree([&] {
    if (world().rank() != 0) return;
    const StateDict items = read_file(folder / "before.lockstep");
    const SafetensorsFile packed = pack_items(items, find_roles(items));
    write_safetensors(folder / "file.safetensors", packed.tensors, packed.metadata);
    SafetensorsFile file = read_safetensors(folder / "file.safetensors");
    write_file(folder / "after.lockstep", unpack_items(file));
    EXPECT_TRUE(file.metadata.empty());
    EXPECT_TRUE(file.tensors.empty());
    EXPECT_TRUE(bit_equal(read_file(folder / "after.lockstep"), items));
  });
}

TEST(SafetensorsItems, a_training_run_goes_on_after_both_ways_as_if_nothing_had_happened) {
  const SharedFolder folder;
  Training before(world(), optim::Adam({.lr = 0.1, .amsgrad = true}));
  before.run(5);
  save(folder / "before.lockstep", world(), before.items());
  through_safetensors(folder);
  Training after(world(), optim::Adam({.lr = 0.2}), 2);
  after.run(1);
  load(folder / "after.lockstep", world(), after.items());
  EXPECT_TRUE(bit_equal(after.state(), before.state()));
  before.run(3);
  after.run(3);
  EXPECT_TRUE(bit_equal(after.state(), before.state()));
}

TEST(SafetensorsItems, an_exported_model_and_optimizer_load_as_items_of_a_checkpoint) {
  const SharedFolder folder;
  Training before(world(), testing::momentum_sgd());
  before.run(3);
  world().agree([&] {
    if (world().rank() != 0) return;
    export_safetensors(folder / "file", before.model, &before.optimizer);
    SafetensorsFile file = read_safetensors(folder / "file");
    write_file(folder / "after.lockstep", unpack_items(file, "net"));
  });
  Training after(world(), testing::momentum_sgd(), 2);
  load(folder / "after.lockstep", world(), {{"net", after.model}, {"optimizer", after.optimizer}});
  EXPECT_TRUE(bit_equal(after.model.state_dict(), before.model.state_dict()));
  EXPECT_TRUE(bit_equal(after.optimizer.state_dict(), before.optimizer.state_dict()));
}

// Of one with two parameters, after a step.
StateDict state_of(KeyedOptimizer& optimizer) {
  optimizer.init_state();
  return optimizer.state_dict();
}

TEST(SafetensorsItems, what_is_an_optimizer_goes_by_its_state) {
  Parameter weight(Tensor::full({2}, 1)), bias(Tensor::full({3}, 2));
  NamedOptimizer adam({{"weight", weight}}, optim::Adam()), nadam({{"bias", bias}}, optim::NAdam());
  CombinedOptimizer combined({{"a", adam}, {"b", nadam}});
  optim::LBFGS lbfgs({{"weight", weight}});
  EXPECT_TRUE(is_optimizer(state_of(adam)));
  EXPECT_TRUE(is_optimizer(state_of(nadam)));
  EXPECT_TRUE(is_optimizer(state_of(combined)));
  EXPECT_FALSE(is_optimizer(lbfgs.state_dict()));
  EXPECT_FALSE(is_optimizer(StateDict{{"weight", weight.value()}}));
  EXPECT_FALSE(is_optimizer(1));
}

TEST(SafetensorsItems, an_optimizer_that_would_not_come_back_is_none) {
  Parameter weight(Tensor::full({2}, 1)), bias(Tensor::full({3}, 2));
  NamedOptimizer adam({{"weight", weight}, {"bias", bias}}, optim::Adam());
  const StateDict good = state_of(adam).clone();
  const auto is_one = [&good](const auto& change) {
    StateDict state = good.clone();
    change(state);
    return is_optimizer(state);
  };
  const auto slots = [](StateDict& state) -> StateDict& {
    return state["state"].as_dict()["weight"].as_dict();
  };
  const auto group = [](StateDict& state) -> StateDict& {
    return state["param_groups"].as_list()[0].as_dict();
  };
  EXPECT_TRUE(is_one([](StateDict&) {}));
  EXPECT_TRUE(is_one([&](StateDict& state) { slots(state)["exp_avg"] = Tensor::zeros({7}); }));
  EXPECT_FALSE(is_one([&](StateDict& state) { slots(state)["step"] = Tensor::zeros({}); }));
  EXPECT_FALSE(is_one([&](StateDict& state) { slots(state)["exp.avg"] = Tensor::zeros({}); }));
  EXPECT_FALSE(is_one([&](StateDict& state) { slots(state)["text"] = "x"; }));
  EXPECT_FALSE(is_one([&](StateDict& state) { slots(state)["dict"] = StateDict(); }));
  EXPECT_FALSE(is_one([&](StateDict& state) { slots(state) = StateDict(); }));
  EXPECT_FALSE(is_one([&](StateDict& state) { group(state)["lr"] = "fast"; }));
  EXPECT_FALSE(is_one([&](StateDict& state) { group(state)["lr"] = Tensor::zeros({}); }));
  EXPECT_FALSE(is_one([&](StateDict& state) { group(state)["params"] = StateList{1}; }));
  EXPECT_FALSE(is_one([&](StateDict& state) { state["rule"] = 1; }));
  EXPECT_FALSE(is_one([&](StateDict& state) {
    StateList& groups = state["param_groups"].as_list();
    groups.push_back(StateValue(groups[0]));
  }));
  EXPECT_FALSE(is_one([](StateDict& state) { state["more"] = 1; }));
}

TEST(SafetensorsItems, the_roles_of_items_go_by_their_names_and_states) {
  Parameter weight(Tensor::full({2}, 1));
  NamedOptimizer adam({{"weight", weight}}, optim::Adam());
  const StateDict optimizer = state_of(adam), tensors{{"weight", weight.value()}};
  const auto roles = [](const StateDict& items) {
    const ItemRoles found = find_roles(items);
    return std::pair(found.model.value_or("-"), found.optimizer.value_or("-"));
  };
  using Pair = std::pair<std::string, std::string>;
  EXPECT_EQ(roles({{"model", tensors}, {"optimizer", optimizer}}), Pair("model", "optimizer"));
  EXPECT_EQ(roles({{"net", tensors}, {"adam", optimizer}}), Pair("net", "adam"));
  EXPECT_EQ(roles({{"net", tensors}}), Pair("net", "-"));
  EXPECT_EQ(roles({{"adam", optimizer}}), Pair("-", "adam"));
  EXPECT_EQ(roles({{"a", tensors}, {"b", tensors}, {"adam", optimizer}}), Pair("-", "adam"));
  EXPECT_EQ(roles({{"a", tensors}, {"model", tensors}, {"n", 1}}), Pair("model", "-"));
  EXPECT_EQ(roles({{"model", tensors}, {"a", optimizer}, {"b", optimizer}}), Pair("model", "-"));
  EXPECT_EQ(roles({{"model", 1}, {"a", tensors}}), Pair("-", "-"));
  EXPECT_EQ(roles({}), Pair("-", "-"));
}

}  // namespace safetensors_items_test
}  // namespace lockstep::checkpoint
