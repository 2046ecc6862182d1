// Reduction and step together, of an optimizer that is sharded and of one that is not: sharded all. Memory of
// one of them: sharded KIND.

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "program.hpp"

using namespace lockstep;

namespace {

constexpr std::int64_t count = 20, size = 500'000;

const optim::Adam adam({.lr = 1e-8});
const optim::SGD sgd({.lr = 1e-8, .momentum = 0.9});

struct TrainingOptions {
  bool in_reduction = false;
  bool keep_gradients = true;
};

/// Parameters with gradients that are there already, which are reduced and stepped again and again, or that
/// are written before each step.
class Training {
 public:
  using MakeOptimizer =
      std::function<std::unique_ptr<KeyedOptimizer>(const std::vector<NamedParameter>&)>;

  /// In the reduction it is a sharded optimizer that steps.
  Training(const Communicator& ranks, const MakeOptimizer& make_optimizer,
           const TrainingOptions& options)
      : parameters_(bench::normal_parameters(count, size)),
        reducer_(parameters_, ranks, {.keep_gradients = options.keep_gradients}),
        optimizer_(make_optimizer(parameters_)) {
    if (options.in_reduction) {
      in_reduction_ =
          std::make_unique<StepInReduction>(reducer_, dynamic_cast<ShardedOptimizer&>(*optimizer_));
    }
  }

  void write_gradient(std::int64_t i) {
    auto& [name, parameter] = parameters_[static_cast<std::size_t>(i)];
    fill_normal(parameter.mutable_grad(), RandomKey(2).fold(name), 0, 1);
  }

  /// Calls before(i) before the i-th gradient is ready, which begin with the last, as in a backward.
  template <class Before>
  void step(const Before& before) {
    for (std::int64_t i = count; i-- > 0;) {
      before(i);
      reducer_.mark_ready(parameters_[static_cast<std::size_t>(i)].parameter);
    }
    reducer_.finish();
    if (in_reduction_ == nullptr) optimizer_->step();
  }
  void step() {
    step([](std::int64_t) {});
  }

 private:
  std::vector<NamedParameter> parameters_;
  GradientReducer reducer_;
  std::unique_ptr<KeyedOptimizer> optimizer_;
  std::unique_ptr<StepInReduction> in_reduction_;
};

/// Of memory of this process, of which a page that several share counts in parts.
double proportional_bytes() {
  malloc_trim(0);
  std::ifstream file("/proc/self/smaps_rollup");
  std::string word;
  double kibibytes = 0;
  while (file >> word) {
    if (word == "Pss:") file >> kibibytes;
  }
  return 1024 * kibibytes;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    const Communicator world(MPI_COMM_WORLD);
    const auto sharded = [&](const optim::UpdateRule& rule, bool shared_replica) {
      return [&, shared_replica](const std::vector<NamedParameter>& parameters) {
        return std::make_unique<ShardedOptimizer>(
            parameters, rule, world, ShardedOptimizerOptions{.shared_replica = shared_replica});
      };
    };
    const auto whole = [](const optim::UpdateRule& rule) {
      return [&](const std::vector<NamedParameter>& parameters) {
        return std::make_unique<NamedOptimizer>(parameters, rule);
      };
    };
    // Milliseconds.
    const auto times = [&](const optim::UpdateRule& rule, bool shared_replica, bool in_reduction) {
      return [&, shared_replica, in_reduction]() -> bench::Case {
        const auto ours = std::make_shared<Training>(world, sharded(rule, shared_replica),
                                                     TrainingOptions{.in_reduction = in_reduction});
        const auto peer = std::make_shared<Training>(world, whole(rule), TrainingOptions());
        for (std::int64_t i = 0; i < count; ++i) {
          ours->write_gradient(i);
          peer->write_gradient(i);
        }
        return [&, ours, peer](double seconds) {
          const auto medians =
              bench::median_times(world, seconds, {[&] { ours->step(); }, [&] { peer->step(); }});
          return bench::Measurement{1e3 * medians[0], 1e3 * medians[1]};
        };
      };
    };
    // At the most, of each rank, on the mean of all.
    struct Kind {
      Training::MakeOptimizer make_optimizer;
      TrainingOptions options;
    };
    const auto bytes_a_parameter = [&](const Kind& kind) {
      const double before = proportional_bytes();
      double most = 0;
      const auto look = [&] { most = std::max(most, proportional_bytes() - before); };
      Training training(world, kind.make_optimizer, kind.options);
      for (int step = 0; step < 3; ++step) {
        training.step([&](std::int64_t i) {
          training.write_gradient(i);
          if (step > 0) look();
        });
        if (step > 0) look();
      }
      return world.all_reduce(most, ReduceOp::mean) / static_cast<double>(count * size);
    };
    const std::string kind = argc == 2 ? argv[1] : "";
    const TrainingOptions ring{.in_reduction = true, .keep_gradients = false};
    const std::map<std::string, Kind> kinds{{"sharded", {sharded(adam, false), {}}},
                                            {"shared-replica", {sharded(adam, true), {}}},
                                            {"ring", {sharded(adam, false), ring}},
                                            {"ring-shared-replica", {sharded(adam, true), ring}},
                                            {"unsharded", {whole(adam), {}}}};
    if (kind == "all") {
      bench::serve(world, {{"adam", times(adam, false, false)},
                           {"adam-in-reduction", times(adam, false, true)},
                           {"adam-in-reduction-shared-replica", times(adam, true, true)},
                           {"adam-shared-replica", times(adam, true, false)},
                           {"sgd-in-reduction", times(sgd, false, true)}});
    } else if (kinds.contains(kind)) {
      bench::serve(world, {{"memory", [&]() -> bench::Case {
                              const double bytes = bytes_a_parameter(kinds.at(kind));
                              return [bytes](double) { return bench::Measurement{bytes}; };
                            }}});
    } else {
      throw OptionError(
          "expected all, sharded, shared-replica, ring, ring-shared-replica or unsharded");
    }
    return 0;
  });
}
