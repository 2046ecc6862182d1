// What options of training cost: whole steps with one, and without, in turns.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "program.hpp"
#include "step/networks.hpp"

using namespace lockstep;

namespace {

const bench::Network& network() {
  static const bench::Network& mnist =
      *std::find_if(bench::networks().begin(), bench::networks().end(),
                    [](const bench::Network& candidate) { return candidate.name == "mnist"; });
  return mnist;
}

nn::Sequential plain_model() { return bench::make_model(network()); }

/// With a BatchNorm after each hidden layer.
nn::Sequential normalised_model() {
  const auto& widths = network().widths;
  nn::Sequential model;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    if (i > 0) {
      model.append(nn::BatchNorm(widths[i]));
      model.append(nn::ReLU());
    }
    model.append(nn::Linear(widths[i], widths[i + 1]));
  }
  model.initialize(1);
  return model;
}

/// A replica, with a step for each option that needs no other one.
class Training {
 public:
  explicit Training(const Communicator& ranks, nn::Sequential model = plain_model(),
                    const DataParallelOptions& options = {})
      : batches_(network(), ranks.rank()),
        model_(std::move(model)),
        replica_(model_, ranks, options),
        optimizer_(bench::make_optimizer(network(), model_)),
        check_(ranks, {{"model", model_}, {"optimizer", optimizer_}}) {}

  const data::Batch& next_batch() { return batches_.next(); }

  void step() { step_on(next_batch()); }
  void step_on(const data::Batch& batch) {
    optimizer_.zero_grad();
    backward(batch);
    optimizer_.step();
  }

  void unweighted_step() {
    optimizer_.zero_grad();
    loss(next_batch()).backward();
    optimizer_.step();
  }

  void announced_step() {
    step();
    replica_.communicator().barrier();
  }

  void checked_step() {
    step();
    check_.step();
  }

  /// One backward, and each fourth time a step.
  void accumulated_step() {
    if (backwards_ % 4 == 0) optimizer_.zero_grad();
    const bool last = ++backwards_ % 4 == 0;
    const auto deferral = last ? nullptr : replica_.no_sync();
    backward(next_batch());
    if (last) optimizer_.step();
  }

  void clipped_step() {
    optimizer_.set_clipping({.global_norm = 1e-3});
    step();
    optimizer_.remove_clipping();
  }

  void skipping_step() {
    optimizer_.zero_grad();
    backward(next_batch());
    optimizer_.step({.non_finite = optim::NonFinite::skip});
  }

  void scaled_step() {
    optimizer_.zero_grad();
    replica_.backward(next_batch(),
                      [this](const data::Batch& part) { return scale_.scale(loss(part)); });
    scale_.step(optimizer_);
    scale_.update();
  }

 private:
  Variable loss(const data::Batch& batch) { return bench::loss(network(), model_, batch); }
  void backward(const data::Batch& batch) {
    replica_.backward(batch, [this](const data::Batch& part) { return loss(part); });
  }

  bench::Batches batches_;
  nn::Sequential model_;
  DataParallel replica_;
  NamedOptimizer optimizer_;
  ReplicaCheck check_;
  optim::LossScale scale_;
  std::int64_t backwards_ = 0;
};

/// Averages parameters and optimizer every four steps, and no gradients.
class LocalTraining {
 public:
  explicit LocalTraining(const Communicator& ranks)
      : batches_(network(), ranks.rank()),
        model_(plain_model()),
        optimizer_(bench::make_optimizer(network(), model_)),
        averager_(model_.named_parameters(), ranks, {.every = 4}) {}

  void step() {
    optimizer_.zero_grad();
    bench::loss(network(), model_, batches_.next()).backward();
    optimizer_.step();
    averager_.step(optimizer_);
  }

 private:
  bench::Batches batches_;
  nn::Sequential model_;
  NamedOptimizer optimizer_;
  ParameterAverager averager_;
};

/// The batches of a training, without an end.
class Endless {
 public:
  class Iterator {
   public:
    explicit Iterator(Training& training) : training_(&training) { ++*this; }
    const data::Batch& operator*() const { return *batch_; }
    Iterator& operator++() {
      batch_ = &training_->next_batch();
      return *this;
    }
    friend bool operator==(const Iterator&, std::default_sentinel_t) { return false; }

   private:
    Training* training_;
    const data::Batch* batch_ = nullptr;
  };

  explicit Endless(Training& training) : training_(&training) {}
  Iterator begin() { return Iterator(*training_); }
  std::default_sentinel_t end() const { return {}; }

 private:
  Training* training_;
};

/// Takes its batches from JoinedBatches.
class JoinedTraining {
 public:
  explicit JoinedTraining(const Communicator& ranks)
      : training_(ranks), endless_(training_), joined_(endless_, ranks), next_(joined_.begin()) {}

  void step() {
    training_.step_on(*next_);
    ++next_;
  }

 private:
  Training training_;
  Endless endless_;
  JoinedBatches<Endless> joined_;
  JoinedBatches<Endless>::Iterator next_;
};

using Step = std::function<void()>;

/// Milliseconds of a step with and without an option, which take turns of some steps each.
bench::Case in_turns(const Communicator& ranks, const Step& with, const Step& without,
                     int steps = 4) {
  const auto several = [steps](const Step& step) {
    return [step, steps] {
      for (int i = 0; i < steps; ++i) step();
    };
  };
  return [&ranks, steps, calls = std::vector<Step>{several(with), several(without)}](
             double seconds) -> bench::Measurement {
    const auto times = bench::median_times(ranks, seconds, calls);
    return {1e3 * times[0] / steps, 1e3 * times[1] / steps};
  };
}

Step step_of(const auto& training) {
  return [training] { training->step(); };
}

/// An option that needs no other replica: the same one makes both kinds of steps.
bench::SetUp of_a_step(const Communicator& ranks, void (Training::*with)(), int steps = 4) {
  return [&ranks, with, steps] {
    const auto training = std::make_shared<Training>(ranks);
    return in_turns(
        ranks, [training, with] { ((*training).*with)(); }, step_of(training), steps);
  };
}

/// An option that changes how gradients are reduced, once it was used: another replica goes without.
bench::SetUp of_a_replica(const Communicator& ranks, void (Training::*with)()) {
  return [&ranks, with] {
    const auto training = std::make_shared<Training>(ranks);
    return in_turns(
        ranks, [training, with] { ((*training).*with)(); },
        step_of(std::make_shared<Training>(ranks)));
  };
}

/// An option of DataParallel, beside its defaults or others.
bench::SetUp of_replicas(const Communicator& ranks, nn::Sequential (*model)(),
                         const DataParallelOptions& options,
                         const DataParallelOptions& others = {}) {
  return [&ranks, model, options, others] {
    return in_turns(ranks, step_of(std::make_shared<Training>(ranks, model(), options)),
                    step_of(std::make_shared<Training>(ranks, model(), others)));
  };
}

template <class Other>
bench::SetUp of_a_loop(const Communicator& ranks) {
  return [&ranks] {
    return in_turns(ranks, step_of(std::make_shared<Other>(ranks)),
                    step_of(std::make_shared<Training>(ranks)));
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Communicator world(MPI_COMM_WORLD);
    const DataParallelOptions local{.buffers = ReplicaBufferPolicy::local};
    const DataParallelOptions synchronised{.synchronise_batch_norm = true};
    const int steps_to_a_check = static_cast<int>(ReplicaCheckOptions().every);
    const std::map<std::string, bench::SetUp> cases{
        {"sample-weights",
         [&world] {
           const auto training = std::make_shared<Training>(world);
           return in_turns(world, step_of(training), [training] { training->unweighted_step(); });
         }},
        {"fingerprints", of_a_step(world, &Training::announced_step)},
        {"replica-check", of_a_step(world, &Training::checked_step, steps_to_a_check)},
        {"accumulate-4", of_a_step(world, &Training::accumulated_step)},
        {"clip-global-norm", of_a_replica(world, &Training::clipped_step)},
        {"non-finite-skip", of_a_replica(world, &Training::skipping_step)},
        {"loss-scale", of_a_replica(world, &Training::scaled_step)},
        {"predivide", of_replicas(world, plain_model, {.predivide = 2})},
        {"missing-leave-out",
         of_replicas(world, plain_model, {.missing = MissingGradients::leave_out})},
        {"batch-norm-average", of_replicas(world, normalised_model, {}, local)},
        {"batch-norm-synchronised", of_replicas(world, normalised_model, synchronised, local)},
        {"logical-replicas-2", of_replicas(world, plain_model, {.logical_replicas = 2})},
        {"logical-replicas-8", of_replicas(world, plain_model, {.logical_replicas = 8})},
        {"local-sgd-4", of_a_loop<LocalTraining>(world)},
        {"join", of_a_loop<JoinedTraining>(world)},
        {"fp16-1gbit", of_replicas(world, plain_model, {.wire = WireFormat::fp16})},
        {"bf16-1gbit", of_replicas(world, plain_model, {.wire = WireFormat::bf16})},
        {"top-k-1gbit", of_replicas(world, plain_model, {.compression = std::make_shared<TopK>()})},
        {"top-k-1%-1gbit",
         of_replicas(world, plain_model,
                     {.compression = std::make_shared<TopK>(TopK::Options{.fraction = 0.01})})},
        {"power-sgd-1gbit",
         of_replicas(world, plain_model, {.compression = std::make_shared<PowerSgd>()})}};
    bench::serve(world, cases);
    return 0;
  });
}
