// Loads of a part of a checkpoint, under other names, and what they report; metadata.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/version.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::checkpoint {
namespace load_test {

using testing::SharedFolder;
using testing::throws;
using testing::Training;
using testing::world;
using Names = std::vector<std::string>;

nn::Sequential network(std::int64_t outputs, DType dtype = DType::f32) {
  return nn::Sequential{nn::Linear(6, 8, {.dtype = dtype}), nn::ReLU(),
                        nn::Linear(8, outputs, {.dtype = dtype})};
}

Tensor value_of(const nn::Module& model, const std::string& name) {
  return model.state_dict().at(name).as_tensor().clone();
}

void step(nn::Module& model, KeyedOptimizer& optimizer) {
  optimizer.zero_grad();
  sum(model(Tensor::full({2, 6}, 0.5))).backward();
  optimizer.step();
}

// A model with three outputs, its optimizer after a step, and a number, as a checkpoint.
class Load : public ::testing::Test {
 protected:
  Load() {
    model_.initialize(1);
    step(model_, optimizer_);
    save(path_, world(), {{"model", model_}, {"optimizer", optimizer_}, {"progress", progress_}},
         {.metadata = {{"run", "first"}, {"loss", 0.5}}});
  }

  SharedFolder folder_;
  const std::filesystem::path path_ = folder_ / "checkpoint";
  nn::Sequential model_ = network(3);
  NamedOptimizer optimizer_{model_.named_parameters(), optim::Adam()};
  std::int64_t steps_ = 7;
  Scalars progress_{{{"steps", &steps_}}};
};

TEST_F(Load, wants_all_items_to_be_asked_for) {
  nn::Sequential other = network(3);
  const StateDict before = other.state_dict().clone();
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path_, world(), {{"model", other}});
      },
      path_.string(), "optimizer, progress", "LoadMode::subset"));
  EXPECT_TRUE(bit_equal(other.state_dict(), before));
}

TEST_F(Load, of_a_subset_leaves_out_items) {
  nn::Sequential other = network(3);
  const LoadReport report = load(path_, world(), {{"model", other}}, {.mode = LoadMode::subset});
  EXPECT_TRUE(bit_equal(other.state_dict(), model_.state_dict()));
  EXPECT_EQ(report.unexpected, (Names{"optimizer", "progress"}));
  EXPECT_EQ(report.missing, Names());
  EXPECT_EQ(report.kept, Names());
}

TEST_F(Load, of_a_subset_wants_the_names_that_are_here) {
  nn::Sequential fewer{nn::Linear(6, 8)};
  const StateDict before = fewer.state_dict().clone();
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path_, world(), {{"model", fewer}}, {.mode = LoadMode::subset});
      },
      "'model'", "2."));
  std::int64_t number = 5;
  Scalars more({{"number", &number}});
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path_, world(), {{"model", fewer}, {"more", more}}, {.mode = LoadMode::subset});
      },
      "'more'", "'model', 'optimizer', 'progress'"));
  EXPECT_TRUE(bit_equal(fewer.state_dict(), before));
}

TEST_F(Load, in_part_takes_what_both_have) {
  nn::Sequential larger{nn::Linear(6, 8), nn::ReLU(), nn::Flatten(), nn::Linear(8, 10)};
  larger.initialize(2);
  const Tensor head = value_of(larger, "3.weight");
  std::int64_t number = 5;
  Scalars more({{"number", &number}});
  const LoadReport report =
      load(path_, world(), {{"model", larger}, {"more", more}}, {.mode = LoadMode::partial});
  EXPECT_TRUE(bit_equal(value_of(larger, "0.weight"), value_of(model_, "0.weight")));
  EXPECT_TRUE(bit_equal(value_of(larger, "0.bias"), value_of(model_, "0.bias")));
  EXPECT_TRUE(bit_equal(value_of(larger, "3.weight"), head));
  EXPECT_EQ(number, 5);
  EXPECT_EQ(report.missing, (Names{"more", "model/3.bias", "model/3.weight"}));
  EXPECT_EQ(report.unexpected, (Names{"optimizer", "progress", "model/2.bias", "model/2.weight"}));
}

TEST_F(Load, in_part_is_refused_where_a_common_name_does_not_fit) {
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    nn::Sequential other = network(world().rank() == culprit ? 4 : 3);
    const StateDict before = other.state_dict().clone();
    EXPECT_TRUE(throws<CheckpointError>(
        [&] {
          load(path_, world(), {{"model", other}}, {.mode = LoadMode::partial});
        },
        "'model'", "2.", "(rank " + std::to_string(culprit) + ")"));
    EXPECT_TRUE(bit_equal(other.state_dict(), before));
  }
}

TEST_F(Load, by_a_prefix_keeps_what_has_other_names) {
  nn::Sequential other = network(10);
  other.initialize(2);
  const Tensor head = value_of(other, "2.weight");
  const LoadReport report =
      load(path_, world(), {{"model", other}}, {.mode = LoadMode::subset, .prefix = "0."});
  EXPECT_TRUE(bit_equal(value_of(other, "0.weight"), value_of(model_, "0.weight")));
  EXPECT_TRUE(bit_equal(value_of(other, "2.weight"), head));
  EXPECT_EQ(report.kept, (Names{"model/2.bias", "model/2.weight"}));
  EXPECT_EQ(report.missing, Names());
}

TEST_F(Load, gives_names_of_before_to_what_has_others_now) {
  nn::Sequential other{nn::Flatten(), nn::Linear(6, 8), nn::ReLU(), nn::Linear(8, 3)};
  NamedOptimizer optimizer(other.named_parameters(), optim::Adam());
  optimizer.init_state();
  std::int64_t steps = 0;
  Scalars progress({{"steps", &steps}});
  const Renaming rename([](const std::string& name) {
    return name.starts_with("0.")   ? "1." + name.substr(2)
           : name.starts_with("2.") ? "3." + name.substr(2)
                                    : name;
  });
  load(path_, world(), {{"model", other}, {"optimizer", optimizer}, {"progress", progress}},
       {.rename = rename});
  EXPECT_TRUE(bit_equal(value_of(other, "3.weight"), value_of(model_, "2.weight")));
  EXPECT_EQ(steps, 7);
  step(model_, optimizer_);
  step(other, optimizer);
  EXPECT_TRUE(bit_equal(value_of(other, "1.weight"), value_of(model_, "0.weight")));
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path_, world(), {{"model", other}},
             {.mode = LoadMode::subset, .rename = {{"0.bias", "1.bias"}}});
      },
      "'model'", "missing: 1.weight, 3.bias, 3.weight", "unexpected: 0.weight, 2.bias, 2.weight"));
}

TEST_F(Load, refuses_two_names_that_become_one) {
  const StateDict before = model_.state_dict().clone();
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path_, world(), {{"model", model_}},
             {.mode = LoadMode::partial, .rename = {{"0.bias", "0.weight"}}});
      },
      "'0.bias' and '0.weight'", "both '0.weight'"));
  EXPECT_TRUE(bit_equal(model_.state_dict(), before));
}

TEST_F(Load, converts_dtypes_on_request) {
  nn::Sequential other = network(3, DType::f64);
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path_, world(), {{"model", other}}, {.mode = LoadMode::subset});
      },
      "f64", "f32"));
  load(path_, world(), {{"model", other}}, {.mode = LoadMode::subset, .convert_dtype = true});
  EXPECT_TRUE(bit_equal(value_of(other, "2.weight"), value_of(model_, "2.weight").to(DType::f64)));
}

TEST_F(Load, in_part_gives_an_optimizer_the_state_of_parameters_that_are_still_there) {
  nn::Sequential larger{nn::Linear(6, 8), nn::ReLU(), nn::Flatten(), nn::Linear(8, 10)};
  NamedOptimizer optimizer(larger.named_parameters(), optim::Adam());
  optimizer.init_state();
  const LoadReport report =
      load(path_, world(), {{"optimizer", optimizer}}, {.mode = LoadMode::partial});
  const auto state_of = [](const KeyedOptimizer& of, const std::string& name) {
    return of.state_dict().at("state").as_dict().at(name);
  };
  EXPECT_TRUE(bit_equal(state_of(optimizer, "0.weight"), state_of(optimizer_, "0.weight")));
  EXPECT_EQ(state_of(optimizer, "3.weight").as_dict().at("step").as_int(), 0);
  EXPECT_EQ(report.missing, (Names{"optimizer/3.bias", "optimizer/3.weight"}));
  EXPECT_EQ(report.unexpected,
            (Names{"model", "progress", "optimizer/2.bias", "optimizer/2.weight"}));
}

TEST_F(Load, tells_what_was_said_of_the_checkpoint) {
  const StateDict metadata =
      load(path_, world(), {{"model", model_}}, {.mode = LoadMode::subset}).metadata;
  EXPECT_EQ(metadata.at("run").as_string(), "first");
  EXPECT_EQ(metadata.at("loss").as_double(), 0.5);
  EXPECT_EQ(metadata.at("lockstep").as_string(), version());
  EXPECT_EQ(metadata.at("ranks").as_int(), world().size());
  EXPECT_EQ(metadata.at("time").as_string().size(), 20u);
  EXPECT_EQ(metadata.size(), 5u);
  EXPECT_TRUE(bit_equal(file_info(path_).metadata, metadata));
  EXPECT_FALSE(read_file(path_).contains("metadata"));
}

TEST_F(Load, tells_the_time_that_the_environment_says) {
  const std::string usual = std::getenv("SOURCE_DATE_EPOCH");  // of all tests
  setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
  save(path_, world(), {});
  EXPECT_EQ(load(path_, world(), {}).metadata.at("time").as_string(), "2023-11-14T22:13:20Z");
  for (const char* wrong : {"", "now", "-1", "12s", "99999999999999999999"}) {
    setenv("SOURCE_DATE_EPOCH", wrong, 1);
    EXPECT_TRUE(throws<OptionError>([&] { save(path_, world(), {}); }, "SOURCE_DATE_EPOCH", wrong));
  }
  setenv("SOURCE_DATE_EPOCH", usual.c_str(), 1);
}

TEST_F(Load, refuses_metadata_that_are_none) {
  const auto refuses = [&](const StateDict& metadata, const std::string& why) {
    return throws<OptionError>([&] { save(path_, world(), {}, {.metadata = metadata}); }, why);
  };
  EXPECT_TRUE(refuses({{"numbers", Tensor::zeros({2})}}, "tensors"));
  for (const char* name : {"lockstep", "ranks", "time"}) EXPECT_TRUE(refuses({{name, 1}}, name));
  EXPECT_TRUE(throws<NameError>([&] { save(path_, world(), {{"metadata", model_}}); }, "metadata"));
  EXPECT_TRUE(throws<NameError>([&] { write_file(path_, {{"metadata", 1}}); }, "metadata"));
  if (world().size() > 1) {
    EXPECT_TRUE(throws<StateError>(
        [&] {
          save(path_, world(), {}, {.metadata = {{"run", world().rank()}}});
        },
        "metadata/run", "drifted"));
  }
  load(path_, world(), {{"model", model_}}, {.mode = LoadMode::subset});
}

}  // namespace load_test
}  // namespace lockstep::checkpoint
