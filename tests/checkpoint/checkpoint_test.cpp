#include "lockstep/checkpoint/checkpoint.hpp"

#include <cmath>
#include <cstdint>
#include <memory>

#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/sgd.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace checkpoint_test {

using testing::momentum_sgd;
using testing::SharedFolder;
using testing::Training;
using testing::world;

class Checkpoint : public ::testing::Test {
 protected:
  SharedFolder folder_;
};

std::vector<std::unique_ptr<optim::UpdateRule>> rules() {
  std::vector<std::unique_ptr<optim::UpdateRule>> rules;
  rules.push_back(optim::SGD({.lr = 0.1}).clone());
  rules.push_back(momentum_sgd().clone());
  rules.push_back(optim::Adam({.lr = 0.01}).clone());
  rules.push_back(optim::AdamW({.lr = 0.01}).clone());
  return rules;
}

// The communicator of the ranks below `split`, or of those from there on.
Communicator part_of_world(int split) {
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(world().handle(), world().rank() < split ? 0 : 1, world().rank(), &part);
  Communicator ranks(part);
  MPI_Comm_free(&part);
  return ranks;
}

TEST_F(Checkpoint, is_loaded_to_the_bit_into_objects_that_differed) {
  for (const auto& rule : rules()) {
    for (const int steps_before : {0, 3}) {
      Training saved(world(), *rule, 1), loaded(world(), *rule, 2);
      saved.run(4);
      loaded.run(steps_before);
      ASSERT_FALSE(bit_equal(saved.state(), loaded.state()));
      checkpoint::save(folder_ / "checkpoint", world(), saved.items());
      checkpoint::load(folder_ / "checkpoint", world(), loaded.items());
      EXPECT_TRUE(bit_equal(saved.state(), loaded.state())) << rule->name();
    }
  }
}

TEST_F(Checkpoint, continues_a_training_to_the_same_bits) {
  for (const auto& rule : rules()) {
    for (const int steps : {1, 2, 3, 5}) {
      Training uninterrupted(world(), *rule, 1);
      uninterrupted.run(9);
      {
        Training first(world(), *rule, 1);
        first.run(steps);
        checkpoint::save(folder_ / "checkpoint", world(), first.items());
      }
      Training second(world(), *rule, 2);
      checkpoint::load(folder_ / "checkpoint", world(), second.items());
      second.run(9 - steps);
      EXPECT_TRUE(bit_equal(second.state(), uninterrupted.state()))
          << rule->name() << " after step " << steps;
    }
  }
}

TEST_F(Checkpoint, saving_changes_nothing) {
  Training saved(world(), momentum_sgd()), other(world(), momentum_sgd());
  saved.run(2);
  other.run(2);
  checkpoint::save(folder_ / "checkpoint", world(), saved.items());
  EXPECT_TRUE(bit_equal(saved.state(), other.state()));
  saved.run(3);
  other.run(3);
  EXPECT_TRUE(bit_equal(saved.state(), other.state()));
}

TEST_F(Checkpoint, can_be_saved_after_a_step_that_failed) {
  Training training(world(), momentum_sgd()), loaded(world(), momentum_sgd());
  training.run(1);
  training.fail_step();
  checkpoint::save(folder_ / "checkpoint", world(), training.items());
  checkpoint::load(folder_ / "checkpoint", world(), loaded.items());
  training.run(3);
  loaded.run(3);
  EXPECT_TRUE(bit_equal(training.state(), loaded.state()));
}

// With dampening, a first momentum is the gradient itself, so an absent slot is not a zero one.
TEST_F(Checkpoint, slots_that_were_absent_stay_absent) {
  const auto bias = [](Training& training) { return training.model.at<nn::Linear>(0).bias; };
  const auto has_slots = [](const Training& training) {
    return training.optimizer.state_dict().at("state").as_dict().contains("0.bias");
  };
  Training uninterrupted(world(), momentum_sgd()), loaded(world(), momentum_sgd(), 2);
  bias(uninterrupted).set_requires_grad(false);
  uninterrupted.run(2);
  checkpoint::save(folder_ / "checkpoint", world(), uninterrupted.items());
  loaded.run(1);
  ASSERT_TRUE(has_slots(loaded));
  checkpoint::load(folder_ / "checkpoint", world(), loaded.items());
  EXPECT_FALSE(has_slots(loaded));
  bias(uninterrupted).set_requires_grad(true);
  uninterrupted.run(3);
  loaded.run(3);
  EXPECT_TRUE(has_slots(loaded));
  EXPECT_TRUE(bit_equal(loaded.state(), uninterrupted.state()));
}

TEST_F(Checkpoint, of_some_ranks_is_loaded_on_any_other_number) {
  for (int split = 1; split < world().size(); ++split) {
    for (const bool by_first_part : {true, false}) {
      const Communicator ranks = part_of_world(split);
      const bool saves = (world().rank() < split) == by_first_part;
      Training training(ranks, momentum_sgd(), saves ? 1 : 2);
      training.run(saves ? 4 : 1);
      if (saves) checkpoint::save(folder_ / "checkpoint", ranks, training.items());
      world().barrier();
      if (!saves) {
        checkpoint::load(folder_ / "checkpoint", ranks, training.items());
        EXPECT_TRUE(bit_equal(training.state(), checkpoint::read_file(folder_ / "checkpoint")));
        training.run(2);
        checkpoint::save(folder_ / "continued", ranks, training.items());
      }
      world().barrier();
      Training all(world(), momentum_sgd(), 3);
      checkpoint::load(folder_ / "continued", world(), all.items());
      EXPECT_TRUE(bit_equal(all.state(), checkpoint::read_file(folder_ / "continued")));
      EXPECT_EQ(all.step, 6);
    }
  }
}

TEST_F(Checkpoint, of_equal_state_has_equal_bytes) {
  Training first(world(), momentum_sgd()), second(world(), momentum_sgd());
  first.run(3);
  second.run(3);
  checkpoint::save(folder_ / "first", world(), first.items());
  checkpoint::save(folder_ / "second", world(), second.items());
  checkpoint::save(folder_ / "second", world(), second.items());
  const std::string bytes = testing::read_bytes(folder_ / "first");
  EXPECT_GT(bytes.size(), 1000u);
  EXPECT_EQ(bytes, testing::read_bytes(folder_ / "second"));
}

TEST_F(Checkpoint, is_read_as_a_state_dict_by_every_program) {
  Training training(world(), optim::Adam());
  training.run(2);
  checkpoint::save(folder_ / "checkpoint", world(), training.items());
  EXPECT_TRUE(bit_equal(checkpoint::read_file(folder_ / "checkpoint"), training.state()));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "checkpoint.tmp"));
}

TEST_F(Checkpoint, of_no_items_can_be_saved_and_loaded) {
  checkpoint::save(folder_ / "checkpoint", world(), {});
  checkpoint::load(folder_ / "checkpoint", world(), {});
  EXPECT_TRUE(checkpoint::read_file(folder_ / "checkpoint").empty());
}

TEST_F(Checkpoint, gives_some_of_its_items_to_who_asks_for_no_more) {
  Training training(world(), momentum_sgd()), other(world(), momentum_sgd(), 2);
  training.run(2);
  checkpoint::save(folder_ / "checkpoint", world(), training.items());
  const StateDict before = other.state();
  checkpoint::load(folder_ / "checkpoint", world(), {{"model", other.model}},
                   {.mode = checkpoint::LoadMode::subset});
  EXPECT_TRUE(bit_equal(other.state().at("model"), training.state().at("model")));
  EXPECT_TRUE(bit_equal(other.state().at("optimizer"), before.at("optimizer")));
  EXPECT_EQ(other.step, 0);
}

TEST_F(Checkpoint, holds_special_numbers_on_all_ranks) {
  std::int64_t lowest = INT64_MIN, highest = INT64_MAX;
  double infinite = -HUGE_VAL, zero = -0.0, tiny = 5e-324, nan = std::nan("0x123");
  Scalars scalars({{"lowest", &lowest},
                   {"highest", &highest},
                   {"infinite", &infinite},
                   {"zero", &zero},
                   {"tiny", &tiny},
                   {"nan", &nan}});
  const StateDict saved = scalars.state_dict();
  checkpoint::save(folder_ / "checkpoint", world(), {{"scalars", scalars}});
  lowest = highest = 0;
  infinite = zero = tiny = nan = 1;
  checkpoint::load(folder_ / "checkpoint", world(), {{"scalars", scalars}});
  EXPECT_TRUE(bit_equal(scalars.state_dict(), saved));
}

}  // namespace checkpoint_test
}  // namespace lockstep
