#include "lockstep/parallel/timeline.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace timeline_test {

using testing::throws;
using testing::world;
using Json = nlohmann::json;

// A file in a folder that rank 0 makes for all.
class TimelineTest : public ::testing::Test {
 protected:
  TimelineTest() {
    if (world().rank() == 0) folder_.emplace();
    std::string path = folder_ ? (*folder_ / "trace.json").string() : "";
    world().broadcast(path);
    file_ = path;
  }
  ~TimelineTest() override {
    timeline::stop();
    world().barrier();
  }

  // The file is an array that lacks its end.
  std::vector<Json> events() const {
    std::ifstream stream(file_);
    std::stringstream text;
    text << stream.rdbuf();
    std::string array = text.str();
    array.erase(array.find_last_not_of(",\n") + 1);
    return Json::parse(array + "]").get<std::vector<Json>>();
  }

  std::optional<testing::TemporaryFolder> folder_;
  std::filesystem::path file_;
};

struct Batch {
  Tensor x;
  std::int64_t size() const { return x.shape()[0]; }
  Batch slice(std::int64_t begin, std::int64_t end) const { return {x.rows(begin, end)}; }
};

void train(int steps) {
  nn::Sequential model{nn::Linear(4, 8), nn::Tanh(), nn::Linear(8, 2)};
  DataParallel replica(model, world(), {.bucket_bytes = 1});
  NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1}));
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    replica.backward(Batch{Tensor::full({3, 4}, 1)},
                     [&](const Batch& batch) { return mean(model(batch.x)); });
    optimizer.step();
  }
}

void expect_training(const std::vector<Json>& events, int steps) {
  for (int rank = 0; rank < world().size(); ++rank) {
    std::map<std::string, int> counts;
    std::set<std::string> buckets;
    std::map<std::string, double> began;
    double last_end = 0;
    bool named = false;
    for (const Json& event : events) {
      if (event.at("pid") != rank) continue;
      const std::string name = event.at("name"), phase = event.at("ph");
      if (phase == "M") {
        named = named || (name == "process_name" &&
                          event.at("args").at("name") == "rank " + std::to_string(rank));
        continue;
      }
      ++counts[name + " " + phase];
      const double time = event.at("ts");
      if (phase == "b") {
        EXPECT_TRUE(began.emplace(event.at("id2").at("local"), time).second) << "two of one id";
      }
      if (phase == "e") {
        EXPECT_LE(began.at(event.at("id2").at("local")), time);
      }
      if (phase != "X") continue;
      EXPECT_GE(event.at("dur").get<double>(), 0) << name;
      if (name == "wait") continue;  // inside a backward
      EXPECT_GE(time, last_end - 0.002) << name;
      last_end = time + event.at("dur").get<double>();
    }
    EXPECT_TRUE(named) << "rank " << rank;
    for (const char* name : {"forward X", "backward X", "wait X", "step X"}) {
      EXPECT_EQ(counts[name], steps) << name << " of rank " << rank;
    }
    for (const char* name : {"bucket 0", "bucket 1", "bucket 2", "bucket 3"}) {
      EXPECT_EQ(counts[name + std::string(" b")], steps) << name << " of rank " << rank;
      EXPECT_EQ(counts[name + std::string(" e")], steps) << name << " of rank " << rank;
    }
  }
}

TEST_F(TimelineTest, has_what_each_rank_does) {
  start_timeline(file_, world());
  EXPECT_TRUE(timeline::enabled());
  train(3);
  timeline::stop();
  EXPECT_FALSE(timeline::enabled());
  train(1);  // is not recorded
  world().barrier();
  expect_training(events(), 3);
}

TEST_F(TimelineTest, is_begun_by_the_environment_and_replaces_an_older_file) {
  if (world().rank() == 0) std::ofstream(file_) << "[\nsomething else\n";
  world().barrier();
  ::setenv("LOCKSTEP_TIMELINE", file_.c_str(), 1);
  train(2);
  timeline::stop();
  train(1);  // does not begin it again
  ::unsetenv("LOCKSTEP_TIMELINE");
  world().barrier();
  expect_training(events(), 2);
}

TEST_F(TimelineTest, is_not_begun_where_one_rank_wants_none) {
  if (world().rank() == 0) ::setenv("LOCKSTEP_TIMELINE", file_.c_str(), 1);
  train(1);
  ::unsetenv("LOCKSTEP_TIMELINE");
  EXPECT_EQ(timeline::enabled(), world().size() == 1);
}

TEST_F(TimelineTest, refuses_a_second_one_and_a_file_that_cannot_be_written) {
  const std::filesystem::path nowhere = file_.parent_path() / "missing" / "trace.json";
  EXPECT_TRUE(throws<DataError>([&] { start_timeline(nowhere, world()); }, nowhere.string()));
  EXPECT_FALSE(timeline::enabled());
  start_timeline(file_, world());
  const Json before = events().front();
  EXPECT_TRUE(throws<StateError>([&] { start_timeline(file_, world()); }, "already"));
  EXPECT_EQ(events().front(), before) << "the file was begun anew";
}

TEST_F(TimelineTest, is_of_no_effect_on_what_is_computed) {
  const auto trained = [] {
    nn::Sequential model{nn::Linear(4, 8), nn::Tanh(), nn::Linear(8, 2)};
    model.initialize(1);
    DataParallel replica(model, world());
    replica.backward(Batch{Tensor::full({3, 4}, world().rank() + 1)},
                     [&](const Batch& batch) { return mean(model(batch.x)); });
    return model.parameters()[0].grad().clone();
  };
  const Tensor without = trained();
  start_timeline(file_, world());
  EXPECT_TRUE(bit_equal(trained(), without));
}

}  // namespace timeline_test
}  // namespace lockstep
