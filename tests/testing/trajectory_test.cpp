#include "lockstep/testing/trajectory.hpp"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/shared_folder.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3);

namespace lockstep::trajectory_test {

using testing::throws;
using testing::Tolerance;
using testing::Trajectory;
using testing::world;

using Record = std::function<void(Trajectory&)>;

class TrajectoryTest : public ::testing::Test {
 protected:
  std::string read() const {
    std::ifstream stream(file_);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void write(const std::string& text) const {
    world().barrier();
    if (world().rank() == 0) std::ofstream(file_) << text;
    world().barrier();
  }

  // Rank 0's variable counts.
  ::testing::AssertionResult store(const Record& record) const {
    if (world().rank() == 0) setenv("LOCKSTEP_TEST_UPDATE", "1", 1);
    const ::testing::AssertionResult result = compare(record);
    unsetenv("LOCKSTEP_TEST_UPDATE");
    return result;
  }
  ::testing::AssertionResult compare(const Record& record, const Tolerance& tolerance = {}) const {
    Trajectory run(file_, world(), tolerance);
    record(run);
    return run.matches();
  }
  void expect_difference(const Record& record, const std::vector<std::string>& parts,
                         const Tolerance& tolerance = {}) const {
    const ::testing::AssertionResult result = compare(record, tolerance);
    EXPECT_FALSE(result);
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(result.message()).find(part), std::string::npos)
          << "no '" << part << "' in: " << result.message();
    }
  }

  testing::SharedFolder folder_;
  const std::string file_ = folder_ / "run.json";
};

// Two steps, the values of which a change can set.
struct Values {
  double loss = 0.5;
  std::vector<float> weight = std::vector<float>(100, 1.0F);

  void operator()(Trajectory& run) const {
    run.record(1, "loss", 1.0);
    run.record(2, "loss", loss);
    run.record(2, "net.weight", Tensor::from(weight, {10, 10}));
  }
};

TEST_F(TrajectoryTest, that_was_stored_is_matched_whatever_its_values_are) {
  const Record record = [](Trajectory& run) {
    StateDict state;
    state["f64"] = Tensor::from(std::vector<double>{0.1, -1e-310, 1e300}, {3});
    state["i64"] = Tensor::from(std::vector<std::int64_t>{-1, std::int64_t{1} << 60}, {2, 1});
    state["f32"] = Tensor::full({40}, 0.3);
    state["none"] = Tensor::zeros({0, 3});
    state["group"].as_dict()["lr"] = 1.0 / 3;
    state["group"].as_dict()["step"] = 12;
    state["group"].as_dict()["nesterov"] = true;
    state["group"].as_dict()["rule"] = "SGD \"quoted\"";
    state["list"] = StateList{1.5, 2};
    run.record(0, state);
    run.record(7, "nan", std::nan(""));
    run.record(7, "inf", -std::numeric_limits<double>::infinity());
    run.record(7, "numbers", Tensor::full({3}, std::nan("")));
  };
  EXPECT_TRUE(store(record));
  const std::string stored = read();
  for (const char* name : {"group.nesterov", "list.1", "f32", "numbers"}) {
    EXPECT_NE(stored.find('"' + std::string(name) + '"'), std::string::npos) << name;
  }
  EXPECT_TRUE(compare(record));
  EXPECT_TRUE(compare(record, {.relative = 1e-3}));
  EXPECT_EQ(read(), stored);
}

TEST_F(TrajectoryTest, that_differs_names_the_first_step_and_all_values_that_do) {
  ASSERT_TRUE(store(Values()));
  Values run{.loss = 0.25};
  run.weight[99] = 3;
  expect_difference(run, {file_, "on rank 0", "step 2 is the first that differs, in 2 of 2 values",
                          "loss: 0.5 is stored, 0.25 found: off by 0.25",
                          "net.weight: number 99 of f32 [10,10]: 1 is stored, 3 found",
                          "LOCKSTEP_TEST_UPDATE=1"});
}

TEST_F(TrajectoryTest, is_compared_to_the_bit_unless_there_is_a_tolerance) {
  ASSERT_TRUE(store(Values()));
  const Values run{.loss = std::nextafter(0.5, 1)};
  expect_difference(run, {"loss: 0.5 is stored, 0.5000000000000001 found"});
  EXPECT_TRUE(compare(run, {.absolute = 1e-15}));

  Values hidden;
  hidden.weight[1] = std::nextafter(1.0F, 2.0F);  // none of the numbers that are stored
  expect_difference(hidden, {"in 1 of 2 values", "net.weight: "});
  EXPECT_TRUE(compare(hidden, {.relative = 1e-6}));
  hidden.weight[1] = 2;
  expect_difference(hidden, {"norm of f32 [10,10]"}, {.relative = 1e-6});
}

TEST_F(TrajectoryTest, allows_what_its_tolerance_says_and_no_more) {
  ASSERT_TRUE(store(Values()));
  EXPECT_TRUE(compare(Values{.loss = 0.55}, {.relative = 0.11}));
  expect_difference(Values{.loss = 0.55}, {"off by 0.05, where 0.045 is allowed"},
                    {.relative = 0.09});
  EXPECT_TRUE(compare(Values{.loss = 0.55}, {.relative = 0.09, .absolute = 0.01}));
  expect_difference(Values{.loss = std::nan("")}, {"nan found"}, {.relative = 1, .absolute = 1});
  expect_difference(Values{.loss = std::numeric_limits<double>::infinity()}, {"inf found"},
                    {.relative = 1, .absolute = 1});
}

TEST_F(TrajectoryTest, with_other_types_shapes_names_or_steps_differs) {
  ASSERT_TRUE(store([](Trajectory& run) {
    run.record(1, "loss", 1.0);
    run.record(2, "value", Tensor::zeros({2, 3}));
  }));
  const Tolerance wide{.relative = 1, .absolute = 1};
  const auto second = [](const std::string& name, const StateValue& value, std::int64_t step = 2) {
    return [=](Trajectory& run) {
      run.record(1, "loss", 1.0);
      run.record(step, name, value);
    };
  };
  expect_difference(second("value", Tensor::zeros({3, 2})),
                    {"f32 [2,3] is stored, f32 [3,2] found"}, wide);
  expect_difference(second("value", Tensor::zeros({2, 3}, DType::f64)), {"f64 [2,3] found"}, wide);
  expect_difference(second("value", 1.0), {"f32 [2,3] is stored, a number found"}, wide);
  expect_difference(second("other", 1),
                    {"value: is stored, and not found", "other: is found, and not stored"}, wide);
  expect_difference(second("value", Tensor::zeros({2, 3}), 3),
                    {"step 2 is stored, where step 3 is found"}, wide);
  expect_difference([](Trajectory& run) { run.record(1, "loss", 1.0); },
                    {"what is stored ends with step 2, what is found ends with step 1"}, wide);
  expect_difference([](Trajectory&) {}, {"what is found has no step"}, wide);
  expect_difference(
      [&](Trajectory& run) {
        second("value", Tensor::zeros({2, 3}))(run);
        run.record(9, "more", 1);
      },
      {"what is found ends with step 9"}, wide);
}

TEST_F(TrajectoryTest, that_differs_on_one_rank_names_it) {
  ASSERT_TRUE(store(Values()));
  const int last = world().size() - 1;
  expect_difference(Values{.loss = world().rank() == last ? 0.25 : 0.5},
                    {"on rank " + std::to_string(last), "0.25 found"});
}

TEST_F(TrajectoryTest, is_stored_only_where_all_ranks_have_the_same) {
  if (world().size() == 1) return;
  ASSERT_TRUE(store(Values()));
  const std::string stored = read();
  const ::testing::AssertionResult result = store(Values{.loss = 1.0 + world().rank()});
  EXPECT_FALSE(result);
  EXPECT_NE(std::string(result.message()).find("rank 1 differs from rank 0: step 2"),
            std::string::npos)
      << result.message();
  EXPECT_EQ(read(), stored);
}

TEST_F(TrajectoryTest, without_a_file_that_is_one_says_how_to_store_it) {
  expect_difference(Values(), {file_ + " cannot be read", "LOCKSTEP_TEST_UPDATE=1"});
  for (const char* text : {"", "{", "[]", R"({"schema": "other", "version": 1, "steps": []})",
                           R"({"schema": "lockstep.trajectory", "version": 2, "steps": []})",
                           R"({"schema": "lockstep.trajectory", "version": 1, "steps": [3]})"}) {
    write(text);
    expect_difference(Values(), {file_ + " is no trajectory"});
  }
  write(R"({"schema": "lockstep.trajectory", "version": 1, "steps": [
      {"step": 1, "values": {"loss": 1.0}},
      {"step": 2, "values": {"loss": 0.5, "net.weight": {"hash": "0"}}}]})");
  expect_difference(Values(), {"none of a trajectory"});
}

TEST_F(TrajectoryTest, that_cannot_be_written_says_so) {
  world().barrier();
  if (world().rank() == 0) std::filesystem::create_directory(file_);
  world().barrier();
  const ::testing::AssertionResult result = store(Values());
  EXPECT_FALSE(result);
  EXPECT_NE(std::string(result.message()).find(file_ + " cannot be written"), std::string::npos);
}

TEST_F(TrajectoryTest, takes_steps_in_order_and_each_name_once) {
  Trajectory run(file_, world());
  run.record(3, "loss", 1.0);
  EXPECT_TRUE(
      throws<OptionError>([&] { run.record(2, "loss", 1.0); }, "step 2 of loss", "after step 3"));
  EXPECT_TRUE(
      throws<OptionError>([&] { run.record(3, "loss", 1.0); }, "step 3 has two values of loss"));
  const TensorPart part{{4}, 0, Tensor::zeros({2})};
  EXPECT_TRUE(
      throws<OptionError>([&] { run.record(3, "part", part); }, "part is a part of a tensor"));
  run.record(3, "other", 2.0);
  run.record(4, "loss", 1.0);
}

}  // namespace lockstep::trajectory_test
