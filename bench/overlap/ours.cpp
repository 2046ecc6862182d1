// Training steps on two hosts with a slow link, where the reduction takes about as long as the
// backward: how much of it is hidden there.

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <lockstep/comm/environment.hpp>
#include <lockstep/core/checked_cast.hpp>
#include <lockstep/core/error.hpp>
#include <lockstep/nn/init.hpp>
#include <lockstep/parallel/gradient_reducer.hpp>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "comm/check.hpp"
#include "program.hpp"
#include "step/networks.hpp"

using namespace lockstep;

namespace {

// Backward and reduction both take some 0.15 s at 60 GFLOP/s and 1 Gbit/s.
const bench::Network step_network{
    .name = "step", .widths = {1024, 1024, 1024, 1024, 1024, 10}, .batch = 512};

// The same for the buckets, from parameters of 64 KiB.
const bench::Network bucket_network{.name = "bucket",
                                    .widths =
                                        [] {
                                          std::vector<std::int64_t> widths(129, 128);
                                          widths.push_back(10);
                                          return widths;
                                        }(),
                                    .batch = 512};

// With initial values by which gradients stay as large through many layers. Those that are there by
// default make them denormal in the end, which takes several times as long.
nn::Sequential deep_model(const bench::Network& network) {
  nn::Sequential model = bench::make_model(network);
  for (auto& [name, parameter] : model.named_parameters()) {
    if (parameter.shape().rank() != 2) continue;
    nn::init::kaiming_uniform(parameter.mutable_value(), RandomKey(1).fold(name));
  }
  return model;
}

class Training {
 public:
  /// `rank` says which data this one gets.
  Training(const bench::Network& network, const Communicator& ranks, int rank,
           const GradientReducerOptions& options = {})
      : network_(network),
        batches_(network, rank),
        model_(deep_model(network)),
        reducer_(model_.named_parameters(), ranks, options),
        optimizer_(bench::make_optimizer(network, model_)) {}

  nn::Sequential& model() { return model_; }

  void backward() {
    optimizer_.zero_grad();
    bench::loss(network_, model_, batches_.next()).backward();
  }
  void update() { optimizer_.step(); }
  void step() {
    backward();
    update();
  }
  void blocking_step() {
    auto deferral = reducer_.no_sync();
    backward();
    deferral.reset();
    reducer_.finish();
    update();
  }

 private:
  bench::Network network_;
  bench::Batches batches_;
  nn::Sequential model_;
  GradientReducer reducer_;
  NamedOptimizer optimizer_;
};

/// Steps without a reduction, of which it is known when each gradient was ready.
class Timeline {
 public:
  Timeline(const bench::Network& network, int rank)
      : training_(network, Communicator(MPI_COMM_SELF), rank) {
    for (Parameter parameter : training_.model().parameters()) {
      bytes_.push_back(0);
      parameter.register_hook([this](const Parameter& ready) {
        bytes_[next_++] = static_cast<double>(ready.value().bytes());
        note();
      });
    }
  }

  void step() {
    start_ = Clock::now();
    next_ = 0;
    training_.backward();
    note();
    training_.update();
    note();
  }

  void forget() { times_.clear(); }

  double bytes() const { return std::accumulate(bytes_.begin(), bytes_.end(), 0.0); }

  /// How long each step would take at best, with all-reduces over a link of that many bytes a second
  /// in each direction: each gradient is sent once all ranks have it and the link is free. An
  /// all-reduce between two hosts must send each of them all that the other one has.
  std::vector<double> best_steps(const Communicator& ranks, double rate) const {
    std::vector<double> times = times_;
    ranks.all_reduce(std::span(times), ReduceOp::max);
    std::vector<double> steps;
    const std::size_t gradients = bytes_.size();
    for (std::size_t i = 0; i < times.size(); i += gradients + 2) {
      double free = 0;
      for (std::size_t k = 0; k < gradients; ++k) {
        free = std::max(free, times[i + k]) + bytes_[k] / rate;
      }
      const double backward = times[i + gradients], update = times[i + gradients + 1] - backward;
      steps.push_back(std::max(free, backward) + update);
    }
    return steps;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void note() { times_.push_back(std::chrono::duration<double>(Clock::now() - start_).count()); }

  Training training_;
  Clock::time_point start_;
  std::size_t next_ = 0;
  std::vector<double> bytes_;  // of each gradient, in the order in which they are ready
  std::vector<double>
      times_;  // of each step: all of these, the end of the backward, and that of all
};

/// Sends so many bytes from one host to the other, and then as many back. Not both at once, for which
/// Open MPI often takes as long, though the link has its rate in each direction: its receipts for
/// the one wait behind the data of the other.
class Transfer {
 public:
  Transfer(const Communicator& ranks, double bytes)
      : ranks_(ranks), data_(static_cast<std::size_t>(bytes)) {
    if (ranks.size() != 2) throw OptionError("expected two ranks, each on a host of its own");
  }

  void run() {
    for (const int sender : {0, 1}) {
      const int size = checked_cast<int>(data_.size(), "size"), other = 1 - ranks_.rank();
      if (ranks_.rank() == sender) {
        check_mpi(MPI_Send(data_.data(), size, MPI_BYTE, other, 0, ranks_.handle()), "MPI_Send");
      } else {
        check_mpi(
            MPI_Recv(data_.data(), size, MPI_BYTE, other, 0, ranks_.handle(), MPI_STATUS_IGNORE),
            "MPI_Recv");
      }
    }
  }

 private:
  Communicator ranks_;
  std::vector<char> data_;
};

constexpr double ms = 1e3;

/// A step beside the best one that its own parts allow, at the rate of the link in the same turns.
bench::Case step_and_best(const Communicator& ranks) {
  const auto training = std::make_shared<Training>(step_network, ranks, ranks.rank());
  const auto timeline = std::make_shared<Timeline>(step_network, ranks.rank());
  timeline->step();
  const auto transfer = std::make_shared<Transfer>(ranks, timeline->bytes());
  return [=, &ranks](double seconds) -> bench::Measurement {
    timeline->forget();
    const auto times = bench::slowest_times(
        ranks, seconds,
        {[&] { training->step(); }, [&] { timeline->step(); }, [&] { transfer->run(); }});
    const double rate = 2 * timeline->bytes() / bench::median(times[2]);
    return {ms * bench::median(times[0]), ms * bench::median(timeline->best_steps(ranks, rate))};
  };
}

bench::Measurement compare(const Communicator& ranks, double seconds,
                           const std::vector<std::function<void()>>& calls) {
  const std::vector<double> times = bench::median_times(ranks, seconds, calls);
  return {ms * times[0], ms * times[1]};
}

/// A step beside one that reduces when the backward is over.
bench::Case step_and_blocking(const Communicator& ranks) {
  const auto training = std::make_shared<Training>(step_network, ranks, ranks.rank());
  return [=, &ranks](double seconds) {
    return compare(ranks, seconds, {[&] { training->step(); }, [&] { training->blocking_step(); }});
  };
}

/// A step with buckets of that size beside one with those that there are by default.
bench::Case step_and_default(const Communicator& ranks, std::size_t bucket_bytes) {
  const auto training = std::make_shared<Training>(
      bucket_network, ranks, ranks.rank(), GradientReducerOptions{.bucket_bytes = bucket_bytes});
  const auto by_default = std::make_shared<Training>(bucket_network, ranks, ranks.rank());
  return [=, &ranks](double seconds) {
    return compare(ranks, seconds, {[&] { training->step(); }, [&] { by_default->step(); }});
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Communicator world(MPI_COMM_WORLD);
    std::map<std::string, bench::SetUp> cases{
        {"step-1gbit", [&] { return step_and_best(world); }},
        {"step-1gbit-blocking", [&] { return step_and_blocking(world); }}};
    constexpr std::size_t kib = 1024, mib = 1024 * kib;
    const std::map<std::string, std::size_t> buckets{{"64KiB", 64 * kib},
                                                     {"256KiB", 256 * kib},
                                                     {"1MiB", mib},
                                                     {"4MiB", 4 * mib},
                                                     {"25MiB", 25 * mib}};
    for (const auto& [label, bytes] : buckets) {
      cases["bucket-" + label] = [&world, size = bytes] { return step_and_default(world, size); };
    }
    bench::serve(world, cases);
    return 0;
  });
}
