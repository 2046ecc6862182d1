// What does not fit: replicas that have drifted apart, and files that are not what is asked for.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/sgd.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace mismatch_test {

using testing::message_of;
using testing::momentum_sgd;
using testing::read_bytes;
using testing::SharedFolder;
using testing::Training;
using testing::world;

// The message of the Expected that a call throws on all ranks.
template <class Expected, class Function>
std::string message_of_all(Function&& function) {
  std::string message = message_of<Expected>([&] {
    try {
      function();
    } catch (const Error& error) {
      EXPECT_TRUE(error.collective());
      throw;
    }
  });
  std::string of_root = message;
  world().broadcast(of_root);
  EXPECT_EQ(message, of_root);
  return message;
}

void expect_parts(const std::string& of_rank, const std::vector<std::string>& parts) {
  const std::string message = testing::without_host(of_rank);
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "no '" << part << "' in: " << message;
  }
}

void flip_bit(Tensor tensor) { *static_cast<unsigned char*>(tensor.raw()) ^= 1; }

class Drift : public ::testing::Test {
 protected:
  Drift() : training_(world(), momentum_sgd()) {
    training_.run(2);
    folder_.write("checkpoint", "what was there before");
  }

  // Lets each rank in turn differ by what `change` does there and again undoes.
  template <class Change>
  void expect_found(Change&& change, const std::string& entry) {
    for (int culprit = 0; culprit < world().size() && world().size() > 1; ++culprit) {
      if (world().rank() == culprit) change();
      const std::string message = message_of_all<StateError>(
          [&] { checkpoint::save(folder_ / "checkpoint", world(), training_.items()); });
      const bool pair = world().size() == 2;
      const std::string odd = std::to_string(pair ? 1 : culprit);
      expect_parts(message,
                   {entry + " on rank " + odd + " differs from rank" + (pair ? " 0" : "s ")});
      EXPECT_EQ(read_bytes(folder_ / "checkpoint"), "what was there before");
      EXPECT_FALSE(std::filesystem::exists(folder_ / "checkpoint.tmp"));
      if (world().rank() == culprit) change();
    }
    checkpoint::save(folder_ / "after", world(), training_.items());
  }

  SharedFolder folder_;
  Training training_;
};

TEST_F(Drift, of_a_parameter_is_an_error_that_names_it) {
  expect_found([&] { flip_bit(training_.model.at<nn::Linear>(3).weight.value()); },
               "'model/3.weight'");
}

TEST_F(Drift, of_an_optimizer_slot_is_an_error_that_names_it) {
  expect_found(
      [&] {
        const StateDict state = training_.optimizer.state_dict();
        flip_bit(
            state.at("state").as_dict().at("0.bias").as_dict().at("momentum_buffer").as_tensor());
      },
      "'optimizer/state/0.bias/momentum_buffer'");
}

TEST_F(Drift, of_a_scalar_is_an_error_that_names_it) {
  expect_found([&] { training_.step ^= 1; }, "'progress/step'");
  expect_found([&] { training_.loss_sum = -training_.loss_sum; }, "'progress/loss_sum'");
}

TEST_F(Drift, of_a_hyper_parameter_is_an_error_that_names_it) {
  expect_found(
      [&] {
        ParamGroup& group = training_.optimizer.param_groups()[0];
        group.set_lr(0.3 - group.lr());
      },
      "'optimizer/param_groups/0/lr'");
}

TEST_F(Drift, of_which_entries_there_are_is_an_error_that_names_one) {
  double extra = 0, b = 0;
  for (int culprit = 0; culprit < world().size() && world().size() > 1; ++culprit) {
    Scalars without({{"b", &b}}), with({{"b", &b}, {"extra", &extra}});
    Scalars& mine = world().rank() == culprit ? with : without;
    const std::string message = message_of_all<StateError>([&] {
      checkpoint::save(folder_ / "checkpoint", world(), {{"a", mine}});
    });
    expect_parts(message, {world().size() == 2 && culprit == 0
                               ? "'a/extra' is missing on rank 1, unlike rank 0"
                               : "'a/extra' is only on rank " + std::to_string(culprit)});
  }
}

class Refusal : public ::testing::Test {
 protected:
  Refusal() : training_(world(), momentum_sgd(), 2) {
    Training saved(world(), momentum_sgd());
    saved.run(3);
    checkpoint::save(folder_ / "good", world(), saved.items());
    bytes_ = read_bytes(folder_ / "good");
    training_.run(1);
  }

  // Whatever was refused, the run goes on.
  void TearDown() override {
    training_.run(1);
    checkpoint::save(folder_ / "good", world(), training_.items());
    EXPECT_TRUE(bit_equal(checkpoint::read_file(folder_ / "good"), training_.state()));
  }

  void expect_refused(const std::string& name, const std::vector<checkpoint::Item>& items,
                      const std::vector<std::string>& parts) {
    const StateDict before = training_.state();
    const std::string message = message_of_all<CheckpointError>([&] {
      checkpoint::load(folder_ / name, world(), items, {.mode = checkpoint::LoadMode::subset});
    });
    expect_parts(message, parts);
    expect_parts(message, {(folder_ / name).string()});
    EXPECT_TRUE(bit_equal(training_.state(), before));
  }
  void expect_refused(const std::string& name, const std::vector<std::string>& parts) {
    expect_refused(name, training_.items(), parts);
  }

  SharedFolder folder_;
  Training training_;
  std::string bytes_;
};

TEST_F(Refusal, of_a_missing_file) { expect_refused("missing", {"no such file"}); }

TEST_F(Refusal, of_a_folder) { expect_refused("", {"not a regular file"}); }

TEST_F(Refusal, of_a_path_below_a_file) { expect_refused("good/file", {}); }

TEST_F(Refusal, of_a_truncated_file) {
  folder_.write("bad", bytes_.substr(0, bytes_.size() - 1));
  expect_refused("bad", {"cut off"});
}

TEST_F(Refusal, of_a_damaged_parameter) {
  const StateDict state = checkpoint::read_file(folder_ / "good");
  const Tensor& weight = state.at("model").as_dict().at("0.weight").as_tensor();
  const std::string data(static_cast<const char*>(weight.raw()), weight.bytes());
  std::string damaged = bytes_;
  damaged[damaged.find(data)] ^= 4;
  folder_.write("bad", damaged);
  expect_refused("bad", {"checksum", "'model/0.weight'"});
}

TEST_F(Refusal, of_a_newer_version) {
  std::string newer = bytes_;
  newer[8] = 2;
  folder_.write("newer", newer);
  expect_refused("newer", {"version 2", "version 1"});
}

TEST_F(Refusal, of_a_model_of_another_shape) {
  nn::Sequential other{nn::Linear(6, 9), nn::ReLU(), nn::Dropout(0.25), nn::Linear(9, 3)};
  const StateDict before = other.state_dict().clone();
  // The optimizer comes first and would fit.
  expect_refused("good", {{"optimizer", training_.optimizer}, {"model", other}},
                 {"'model'", "0.bias", "(9)", "(8)"});
  EXPECT_TRUE(bit_equal(other.state_dict(), before));
}

TEST_F(Refusal, of_a_model_with_other_layers) {
  nn::Sequential more{nn::Linear(6, 8), nn::ReLU(), nn::Dropout(0.25), nn::Linear(8, 3),
                      nn::Linear(3, 3)};
  expect_refused("good", {{"model", more}}, {"'model'", "'4.bias'"});
  nn::Sequential fewer{nn::Linear(6, 8), nn::ReLU(), nn::Dropout(0.25)};
  expect_refused("good", {{"model", fewer}}, {"'model'", "'3.bias'"});
}

TEST_F(Refusal, of_a_model_of_another_dtype) {
  nn::Sequential other{nn::Linear(6, 8, {.dtype = DType::f64}), nn::ReLU(), nn::Dropout(0.25),
                       nn::Linear(8, 3)};
  expect_refused("good", {{"model", other}}, {"'model'", "0.bias", "f64", "f32"});
}

TEST_F(Refusal, of_an_optimizer_with_another_rule) {
  NamedOptimizer adam(training_.model.named_parameters(), optim::Adam());
  expect_refused("good", {{"model", training_.model}, {"optimizer", adam}},
                 {"'optimizer'", "SGD", "Adam"});
  EXPECT_TRUE(adam.state_dict().at("state").as_dict().empty());
}

TEST_F(Refusal, of_a_missing_item_lists_what_there_is) {
  std::int64_t number = 7;
  Scalars scalars({{"number", &number}});
  std::vector<checkpoint::Item> items = training_.items();
  items.emplace_back("scheduler", scalars);
  expect_refused("good", items, {"'scheduler'", "'loader', 'model', 'optimizer', 'progress'"});
  EXPECT_EQ(number, 7);
}

TEST_F(Refusal, of_a_missing_or_mistyped_scalar) {
  std::int64_t number = 7;
  double real = 7;
  Scalars missing({{"number", &number}}), mistyped({{"step", &real}, {"loss_sum", &real}});
  expect_refused("good", {{"progress", missing}}, {"'progress'", "missing: number"});
  expect_refused("good", {{"progress", mistyped}}, {"'progress'", "a double", "an integer"});
  EXPECT_EQ(number, 7);
  EXPECT_EQ(real, 7);
}

TEST_F(Refusal, where_one_rank_alone_has_another_model) {
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    const std::int64_t width = world().rank() == culprit ? 9 : 8;
    nn::Sequential model{nn::Linear(6, width), nn::ReLU(), nn::Dropout(0.25), nn::Linear(width, 3)};
    const StateDict before = model.state_dict().clone();
    expect_refused("good", {{"optimizer", training_.optimizer}, {"model", model}},
                   {"'model'", "0.bias", "(rank " + std::to_string(culprit) + ")"});
    EXPECT_TRUE(bit_equal(model.state_dict(), before));
  }
}

TEST_F(Refusal, of_two_items_with_one_name) {
  for (const bool saves : {true, false}) {
    const std::string message = message_of_all<NameError>([&] {
      const std::vector<checkpoint::Item> items{{"model", training_.model},
                                                {"model", training_.model}};
      if (saves) {
        checkpoint::save(folder_ / "good", world(), items);
      } else {
        checkpoint::load(folder_ / "good", world(), items);
      }
    });
    expect_parts(message, {"'model'"});
  }
  EXPECT_EQ(read_bytes(folder_ / "good"), bytes_);
}

TEST_F(Refusal, to_write_where_that_is_impossible) {
  for (const char* name : {"missing/file", "good/file"}) {
    const std::string message = message_of_all<CheckpointError>(
        [&] { checkpoint::save(folder_ / name, world(), training_.items()); });
    expect_parts(message, {(folder_ / name).string(), "rank 0"});
  }
  message_of_all<CheckpointError>(
      [&] { checkpoint::save(folder_ / ".", world(), training_.items()); });
}

// A user who is not root, and so needs permissions.
class SomebodyElse {
 public:
  SomebodyElse() : works_(geteuid() != 0 || seteuid(65534) == 0) {}
  ~SomebodyElse() {
    if (getuid() == 0 && seteuid(0) != 0) std::abort();
  }
  bool works() const { return works_; }

 private:
  bool works_;
};

TEST_F(Refusal, of_a_file_that_may_not_be_read) {
  if (world().rank() == 0) {
    chmod((folder_ / "").c_str(), 0755);
    chmod((folder_ / "good").c_str(), 0);
  }
  world().barrier();
  {
    const SomebodyElse user;
    if (!user.works()) GTEST_SKIP() << "root cannot become another user here";
    expect_refused("good", {"cannot be opened for reading: Permission denied", "(rank 0)"});
  }
  world().barrier();
}

TEST_F(Refusal, to_write_to_a_folder_where_that_is_not_permitted) {
  if (world().rank() == 0) chmod((folder_ / "").c_str(), 0555);
  world().barrier();
  {
    const SomebodyElse user;
    if (!user.works()) GTEST_SKIP() << "root cannot become another user here";
    const StateDict before = training_.state();
    const std::string message = message_of_all<CheckpointError>(
        [&] { checkpoint::save(folder_ / "good", world(), training_.items()); });
    expect_parts(message, {"cannot create '" + (folder_ / "good.tmp").string() + "'",
                           "Permission denied", "(rank 0)"});
    EXPECT_TRUE(bit_equal(training_.state(), before));
  }
  EXPECT_EQ(read_bytes(folder_ / "good"), bytes_);
  world().barrier();
  if (world().rank() == 0) chmod((folder_ / "").c_str(), 0755);
  world().barrier();
}

}  // namespace mismatch_test
}  // namespace lockstep
