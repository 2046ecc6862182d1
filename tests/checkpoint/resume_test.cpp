// A run that is saved after any step and resumed has the bits of one that was never interrupted.
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/training.hpp"
#include "comm/placements.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/lion.hpp"
#include "lockstep/optim/moving_average.hpp"
#include "lockstep/optim/rmsprop.hpp"
#include "lockstep/optim/schedule.hpp"
#include "lockstep/optim/scheduler.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace resume_test {

using testing::arrangements;
using testing::SharedFolder;
using testing::world;

constexpr std::int64_t samples = 48, batch = 16;
constexpr int steps = 8;  // of three an epoch

// What a run is made of, beside its ranks.
struct Setting {
  std::shared_ptr<const optim::UpdateRule> rule;
  std::shared_ptr<const GradientCompression> compression = nullptr;
  std::int64_t logical_replicas = 0;
};

class Job {
 public:
  Job(const Communicator& ranks, const Setting& setting, std::uint64_t seed)
      : dataset_(testing::random_samples(samples)),
        model_(make_model(seed)),
        replica_(model_, ranks,
                 {.bucket_bytes = 300,
                  .compression = setting.compression,
                  .logical_replicas = setting.logical_replicas}),
        optimizer_(model_.named_parameters(), *setting.rule),
        scheduler_(optimizer_, optim::schedule::warm_up(3, optim::schedule::cosine({.steps = 12}))),
        average_(model_.named_parameters()),
        loader_(dataset_, data::DistributedSampler(
                              samples, batch, ranks.rank(), ranks.size(),
                              {.seed = 5, .logical_replicas = setting.logical_replicas})),
        compresses_(setting.compression != nullptr) {}
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void go_on(int count) {
    while (count > 0) {
      for (const data::Batch& of_rank : loader_) {
        optimizer_.zero_grad();
        replica_.backward(of_rank, [&](const data::Batch& part) {
          return cross_entropy(model_(part.inputs), part.targets);
        });
        optimizer_.step();
        scheduler_.step();
        average_.update();
        ++step_;
        if (--count == 0) break;
      }
    }
  }

  std::vector<checkpoint::Item> items() {
    std::vector<checkpoint::Item> items{{"model", model_},        {"optimizer", optimizer_},
                                        {"schedule", scheduler_}, {"average", average_},
                                        {"loader", loader_},      {"progress", progress_}};
    if (compresses_) items.emplace_back("compression", replica_.reducer());
    return items;
  }
  StateDict state() {
    StateDict state;
    for (const checkpoint::Item& item : items()) state[item.name] = item.object->state_dict();
    return state.clone();
  }

 private:
  static nn::Sequential make_model(std::uint64_t seed) {
    nn::Sequential model{nn::Linear(6, 8), nn::BatchNorm(8), nn::ReLU(), nn::Dropout(0.25),
                         nn::Linear(8, 3)};
    model.initialize(seed);
    return model;
  }

  data::TensorDataset dataset_;
  nn::Sequential model_;
  DataParallel replica_;
  NamedOptimizer optimizer_;
  Scheduler scheduler_;
  ExponentialMovingAverage average_;
  data::DataLoader loader_;
  bool compresses_;
  std::int64_t step_ = 0;
  Scalars progress_{{{"step", &step_}}};
};

TEST(Resume, gives_the_bits_of_an_uninterrupted_run_with_all_that_has_state) {
  const SharedFolder folder;
  const std::vector<std::shared_ptr<const optim::UpdateRule>> rules{
      testing::momentum_sgd().clone(), optim::Adam({.lr = 0.01}).clone(),
      optim::RMSprop({.lr = 0.01, .momentum = 0.5}).clone(), optim::Lion({.lr = 0.01}).clone()};
  const std::vector<std::shared_ptr<const GradientCompression>> compressions{
      nullptr, std::make_shared<TopK>(TopK::Options{.fraction = 0.2, .least_size = 20}),
      std::make_shared<PowerSgd>(PowerSgd::Options{.rank = 1, .seed = 5})};
  const std::vector<testing::Arrangement> all = arrangements();
  std::mt19937 random(1);
  for (std::size_t trial = 0; trial < rules.size() * compressions.size(); ++trial) {
    const Setting setting{.rule = rules[trial % rules.size()],
                          .compression = compressions[trial % compressions.size()]};
    const testing::Arrangement& arrangement = all[random() % all.size()];
    const Communicator ranks(world().handle(), arrangement.options);
    const int saved = 1 + static_cast<int>(random() % (steps - 1));
    Job uninterrupted(ranks, setting, 1);
    uninterrupted.go_on(steps);
    {
      Job first(ranks, setting, 1);
      first.go_on(saved);
      checkpoint::save(folder / "file", ranks, first.items());
    }
    Job second(ranks, setting, 2);
    second.go_on(static_cast<int>(random() % 3));
    checkpoint::load(folder / "file", ranks, second.items());
    second.go_on(steps - saved);
    EXPECT_TRUE(bit_equal(second.state(), uninterrupted.state()))
        << setting.rule->name() << ", compression " << trial % compressions.size() << ", "
        << arrangement.name << ", saved after step " << saved;
  }
}

// So all of it is needed.
TEST(Resume, gives_other_bits_without_any_item) {
  const SharedFolder folder;
  const Communicator ranks(world().handle(), {.node = world().rank()});
  const Setting setting{.rule = testing::momentum_sgd().clone(),
                        .compression = std::make_shared<TopK>(TopK::Options{.least_size = 20})};
  Job uninterrupted(ranks, setting, 1), first(ranks, setting, 1);
  uninterrupted.go_on(steps);
  first.go_on(4);
  checkpoint::save(folder / "file", ranks, first.items());
  const std::size_t count = first.items().size();
  for (std::size_t i = 0; i < count; ++i) {
    Job second(ranks, setting, 2);
    std::vector<checkpoint::Item> items = second.items();
    const std::string name = items[i].name;
    // One node has nothing to compress.
    if (world().size() == 1 && name == "compression") continue;
    items.erase(items.begin() + static_cast<std::ptrdiff_t>(i));
    checkpoint::load(folder / "file", ranks, items, {.mode = checkpoint::LoadMode::subset});
    second.go_on(steps - 4);
    EXPECT_FALSE(bit_equal(second.state(), uninterrupted.state())) << name;
  }
}

// What the first ranks do, while the others wait.
template <class Work>
void on_first(int count, const Work& work) {
  const bool is_one = world().rank() < count;
  MPI_Comm part = MPI_COMM_NULL;
  MPI_Comm_split(world().handle(), is_one ? 0 : 1, world().rank(), &part);
  {
    const Communicator ranks(part);
    world().agree([&] {
      if (is_one) work(ranks);
    });
  }
  MPI_Comm_free(&part);
}

TEST(Resume, with_logical_replicas_gives_the_same_bits_from_any_number_of_ranks_on_any_other) {
  const SharedFolder folder;
  const Communicator self(MPI_COMM_SELF);
  std::mt19937 random(2);
  for (const std::int64_t logical_replicas : {4, 8}) {
    const Setting setting{.rule = optim::Adam({.lr = 0.01}).clone(),
                          .logical_replicas = logical_replicas};
    Job alone(self, setting, 1);
    alone.go_on(steps);
    const StateDict expected = alone.state();
    for (int before = 1; before <= world().size(); ++before) {
      for (int after = 1; after <= world().size(); ++after) {
        const int saved = 1 + static_cast<int>(random() % (steps - 1));
        on_first(before, [&](const Communicator& ranks) {
          Job first(ranks, setting, 1);
          first.go_on(saved);
          checkpoint::save(folder / "file", ranks, first.items());
        });
        on_first(after, [&](const Communicator& ranks) {
          Job second(ranks, setting, 2);
          checkpoint::load(folder / "file", ranks, second.items());
          second.go_on(steps - saved);
          EXPECT_TRUE(bit_equal(second.state(), expected))
              << before << " ranks, then " << after << ", saved after step " << saved << ", "
              << logical_replicas << " logical replicas";
        });
      }
    }
  }
}

}  // namespace resume_test
}  // namespace lockstep
