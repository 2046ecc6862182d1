// Whole training steps: forward, backward with its reduction, and optimizer.

#include <algorithm>
#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "program.hpp"
#include "step/networks.hpp"
#include "step/roofline.hpp"

using namespace lockstep;

namespace {

/// `ranks` is the communicator of the replicas; `rank` says which data this one gets.
class Training {
 public:
  Training(const bench::Network& network, const Communicator& ranks, int rank,
           const DataParallelOptions& options = {})
      : network_(network),
        batches_(network, rank),
        model_(bench::make_model(network)),
        replica_(model_, ranks, options),
        optimizer_(bench::make_optimizer(network, model_)) {}

  void step() {
    optimizer_.zero_grad();
    replica_.backward(batches_.next(), [this](const data::Batch& batch) {
      return bench::loss(network_, model_, batch);
    });
    optimizer_.step();
  }

 private:
  bench::Network network_;
  bench::Batches batches_;
  nn::Sequential model_;
  DataParallel replica_;
  NamedOptimizer optimizer_;
};

/// The same with state in shares, values that the ranks of a node have once, and steps in the reduction, to the same bits.
class ShardedTraining {
 public:
  ShardedTraining(const bench::Network& network, const Communicator& ranks, int rank)
      : network_(network),
        batches_(network, rank),
        model_(bench::make_model(network)),
        replica_(model_, ranks),
        optimizer_(model_.named_parameters(), *bench::make_rule(network), ranks,
                   {.shared_replica = true}),
        in_reduction_(replica_.reducer(), optimizer_) {}

  void step() {
    optimizer_.zero_grad();
    replica_.backward(batches_.next(), [this](const data::Batch& batch) {
      return bench::loss(network_, model_, batch);
    });
  }

 private:
  bench::Network network_;
  bench::Batches batches_;
  nn::Sequential model_;
  DataParallel replica_;
  ShardedOptimizer optimizer_;
  StepInReduction in_reduction_;
};

/// Milliseconds.
template <class T = Training>
bench::SetUp step(const bench::Network& network, const Communicator& ranks) {
  return [&] {
    const auto training = std::make_shared<T>(network, ranks, ranks.rank());
    return [training, &ranks](double seconds) -> bench::Measurement {
      return {1e3 * bench::median_times(ranks, seconds, {[&] { training->step(); }})[0]};
    };
  };
}

/// Samples a second of all ranks together.
template <class T = Training>
bench::SetUp samples(const bench::Network& network, const Communicator& ranks) {
  return [&, set_up = step<T>(network, ranks)] {
    return [&, measure = set_up()](double seconds) -> bench::Measurement {
      const double step_seconds = 1e-3 * measure(seconds).value;
      return {static_cast<double>(network.batch * ranks.size()) / step_seconds};
    };
  };
}

/// f(times of steps, and of the same on a communicator of one rank, which reduce nothing). Both take turns, each on all ranks
/// at once, so that they have as much of the machine; and of each it is the slower rank that counts, so that to wait for
/// one that still computes is no part of the difference.
template <class F>
bench::SetUp beside_one_rank(const bench::Network& network, const Communicator& ranks,
                             const DataParallelOptions& options, F f) {
  return [=, &ranks] {
    const auto whole = std::make_shared<Training>(network, ranks, ranks.rank(), options);
    const auto part =
        std::make_shared<Training>(network, Communicator(MPI_COMM_SELF), ranks.rank());
    return [=, &ranks](double seconds) -> bench::Measurement {
      const auto times =
          bench::slowest_times(ranks, seconds, {[&] { whole->step(); }, [&] { part->step(); }});
      return f(times[0], times[1]);
    };
  };
}

/// What a step takes longer by its reduction, in percent of it. The peer is the limit, 5 %.
bench::SetUp reduction(const bench::Network& network, const Communicator& ranks) {
  using Times = std::vector<double>;
  return beside_one_rank(network, ranks, {}, [](const Times& whole, const Times& part) {
    std::vector<double> shares;
    for (std::size_t turn = 0; turn < whole.size(); ++turn) {
      shares.push_back(100 * (1 - part[turn] / whole[turn]));
    }
    constexpr double least = 0.01;  // where it is lost in the noise
    return bench::Measurement{std::max(bench::median(shares), least), 5.0};
  });
}

/// Samples a second of all hosts together, and what they would be if nothing were reduced: as many times those of one host,
/// which has as much of the machine.
bench::SetUp hosts(const bench::Network& network, const Communicator& ranks,
                   const DataParallelOptions& options) {
  using Times = std::vector<double>;
  const auto samples = static_cast<double>(network.batch * ranks.size());
  return beside_one_rank(network, ranks, options, [=](const Times& whole, const Times& part) {
    return bench::Measurement{samples / bench::median(whole), samples / bench::median(part)};
  });
}

/// Milliseconds on two threads, and on one, in turns.
bench::SetUp two_threads(const bench::Network& network, const Communicator& ranks) {
  return [&] {
    const auto training = std::make_shared<Training>(network, ranks, ranks.rank());
    return [training, &ranks](double seconds) -> bench::Measurement {
      const auto on = [&](int count) {
        return [&training, count] {
          set_threads(count);
          training->step();
        };
      };
      const auto times = bench::median_times(ranks, seconds, {on(2), on(1)});
      return {1e3 * times[0], 1e3 * times[1]};
    };
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Communicator world(MPI_COMM_WORLD);
    std::map<std::string, bench::SetUp> cases;
    for (const bench::Network& network : bench::networks()) {
      cases[network.name] = step(network, world);
      cases[network.name + "-sharded"] = step<ShardedTraining>(network, world);
      cases[network.name + "-images"] = samples(network, world);
      cases[network.name + "-sharded-images"] = samples<ShardedTraining>(network, world);
      cases[network.name + "-reduction"] = reduction(network, world);
      cases[network.name + "-threads"] = two_threads(network, world);
      cases[network.name + "-hosts"] = hosts(network, world, {});
      cases[network.name + "-hosts-fp16"] = hosts(network, world, {.wire = WireFormat::fp16});
      cases[network.name + "-hosts-power-sgd"] =
          hosts(network, world, {.compression = std::make_shared<PowerSgd>()});
      cases[network.name + "-roofline"] = bench::roofline(network, world, [&] {
        const auto training = std::make_shared<Training>(network, world, world.rank());
        return [training] { training->step(); };
      });
    }
    bench::serve(world, cases);
    return 0;
  });
}
