// Random stories of steps, the same on all ranks, against sums over what all ranks have drawn.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/core/part_begin.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/drawn_gradients.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace reducer_property_test {

using namespace testing;

class Story {
 public:
  explicit Story(std::uint64_t seed) : random_(seed) {
    const auto all = arrangements();
    const auto& arrangement = all[number(all.size())];
    ranks_.emplace(world().handle(), arrangement.options);
    options_ = {.bucket_bytes = std::size_t{1} << number(13),
                .reduction = number(3) == 0 ? GradientReduction::sum : GradientReduction::mean,
                .predivide = number(2) == 0 ? 1.0 : 3.0,
                .missing = static_cast<MissingGradients>(number(8) == 0 ? 2 : number(2)),
                .logical_replicas = number(3) == 0 ? std::int64_t{4} << number(3) : 0};
    for (std::size_t parameters = 1 + number(9); model_.all.size() < parameters;) {
      const auto length = static_cast<std::int64_t>(number(5) == 0 ? 0 : 1 + number(100));
      const bool borrows = number(5) == 0 && length > 0;
      const DType dtype = !borrows && number(4) == 0 ? DType::f32 : DType::f64;
      if (borrows) {
        borrowed_.push_back(std::make_unique<Numbers>(static_cast<std::size_t>(length)));
        model_.all.emplace_back(Tensor::borrow(*borrowed_.back()));
      } else {
        model_.all.emplace_back(Tensor::zeros({length}, dtype));
      }
    }
    round_.options = &options_;
    expected_.resize(model_.all.size());
    buffers_.resize(size());
    replica_ = std::make_unique<DataParallel>(model_, *ranks_, options_);
    where_ = "seed " + std::to_string(seed) + ", " + arrangement.name + ", " +
             std::to_string(options_.logical_replicas) + " logical replicas, reduction " +
             std::to_string(static_cast<int>(options_.reduction)) + ", missing " +
             std::to_string(static_cast<int>(options_.missing)) + ", predivide " +
             std::to_string(options_.predivide);
  }

  bool run(int rounds) {
    for (int round = 0; round < rounds && !has_failed(); ++round) {
      change_between_rounds();
      buffers_before_ = buffers_;
      round_.contributions.clear();
      round_.is_plain = false;
      round_.weights.assign(size(), 0);
      failed_ = false;
      if (options_.logical_replicas > 0) {
        kind_ = "logical";
        logical_round();
      } else if (number(2) == 0) {
        kind_ = "plain";
        round_.is_plain = true;
        plain_round();
      } else {
        kind_ = "batches";
        batch_round();
      }
      had_batches_ = kind_ == "batches";
      check(round);
    }
    return !has_failed();
  }

 private:
  std::size_t number(std::size_t below) {
    return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
  }
  // On any rank.
  static bool has_failed() {
    return world().all_reduce(std::int64_t{::testing::Test::HasFailure()}) > 0;
  }
  static std::size_t size() { return static_cast<std::size_t>(world().size()); }
  static std::size_t rank() { return static_cast<std::size_t>(world().rank()); }
  static bool is_own(std::size_t r) { return r == rank(); }
  GradientReducer& reducer() { return replica_->reducer(); }

  Samples draw_samples(std::size_t count) {
    const Samples samples{next_sample_, next_sample_ + static_cast<std::int64_t>(count)};
    next_sample_ = samples.end + static_cast<std::int64_t>(number(50));
    return samples;
  }

  Variable loss(const Samples& samples, Fault fault) const {
    return draw_loss(model_, samples, round_.reached(samples), fault);
  }
  // With which buffers move as well.
  Variable batch_loss(const Samples& samples, Fault fault) {
    double* average = model_.average.data<double>();
    Buffers own{Numbers(average, average + 3), *model_.count.data<std::int64_t>()};
    own.move(samples);
    std::copy(own.average.begin(), own.average.end(), average);
    *model_.count.data<std::int64_t>() = own.count;
    if (fault == Fault::forward) throw std::runtime_error("in the forward");
    return loss(samples, fault);
  }

  void change_between_rounds() {
    round_.trained.clear();
    const bool freezes = number(3) == 0;
    for (std::size_t i = 0; i < model_.all.size(); ++i) {
      Parameter& parameter = model_.all[i];
      if (freezes) parameter.set_requires_grad(number(3) != 0);
      if (i == 0 && freezes) parameter.set_requires_grad(true);
      if (parameter.requires_grad()) round_.trained.push_back(i);
      switch (number(8)) {
        case 0:
          parameter.zero_grad(false);
          if (expected_[i]) std::fill(expected_[i]->begin(), expected_[i]->end(), 0);
          break;
        case 1:
          write_gradient(parameter.mutable_grad(), {1, 2}, i, 1, false);
          expected_[i].emplace();
          for (std::int64_t k = 0; k < parameter.value().size(); ++k) {
            expected_[i]->push_back(mean_gradient({1, 2}, i, static_cast<std::size_t>(k)));
          }
          break;
        case 2:
        case 3:
        case 4:
          forget(i);
          break;
        default:
          break;
      }
    }
  }
  void forget(std::size_t i) {
    model_.all[i].zero_grad();
    expected_[i].reset();
  }

  std::vector<Fault> draw_faults() {
    std::vector<Fault> faults(size(), Fault::none);
    if (number(12) == 0) faults[number(size())] = number(2) == 0 ? Fault::forward : Fault::backward;
    return faults;
  }
  double draw_weight() {
    const double weights[] = {0, 0, 0.5, 1, 1, 2, 3, 7};
    return weights[number(8)];
  }

  bool throws(const std::function<void()>& call) {
    try {
      call();
    } catch (const std::exception& error) {
      message_ = error.what();
      return true;
    }
    return false;
  }
  // A call that reduces: on all ranks or on none it is an error.
  void reduce(const std::function<void()>& call) {
    const bool has_thrown = throws(call);
    failed_ = failed_ || round_.is_refused();
    EXPECT_EQ(has_thrown, failed_) << describe() << ": " << message_;
  }
  std::string describe() const { return where_ + ", " + kind_; }

  void logical_round() {
    std::vector<Samples> batches;
    const std::size_t all = number(20);
    const Samples global = draw_samples(all);
    const std::vector<Fault> faults = draw_faults();
    std::optional<Buffers> moved;
    Numbers sums(3);
    std::int64_t count = buffers_[0].count;
    for (std::size_t r = 0; r < size(); ++r) {
      const std::int64_t parts = options_.logical_replicas;
      const auto ranks = static_cast<std::int64_t>(size()), own = static_cast<std::int64_t>(r);
      const std::int64_t first = part_begin(parts, own, ranks),
                         last = part_begin(parts, own + 1, ranks);
      for (std::int64_t part = first; part < last; ++part) {
        const Samples samples = global.slice(part_begin(global.size(), part, parts),
                                             part_begin(global.size(), part + 1, parts));
        if (samples.size() == 0) continue;
        failed_ = failed_ || faults[r] != Fault::none;
        round_.add(r, samples, static_cast<double>(samples.size()));
        round_.weights[r] += static_cast<double>(samples.size());
        Buffers buffers = buffers_before_[0];
        buffers.move(samples);
        for (std::size_t k = 0; k < 3; ++k) {
          sums[k] += static_cast<double>(samples.size()) * buffers.average[k];
        }
        count = std::max(count, buffers.count);
      }
      batches.push_back(global.slice(part_begin(global.size(), first, parts),
                                     part_begin(global.size(), last, parts)));
    }
    reduce([&] {
      replica_->backward(batches[rank()], [&](const Samples& samples) {
        return batch_loss(samples, faults[rank()]);
      });
    });
    if (failed_ || round_.total() == 0) return;
    for (double& sum : sums) sum /= round_.total();
    std::fill(buffers_.begin(), buffers_.end(), Buffers{sums, count});
  }

  void plain_round() {
    // Batches leave a weight of 1.
    if (had_batches_ && number(2) == 0) {
      round_.weights.assign(size(), 1);
    } else {
      for (double& weight : round_.weights) weight = number(10) == 0 ? -1 : draw_weight();
      reducer().set_weight(round_.weights[rank()]);
    }
    const std::size_t deferred = number(3);
    if (number(4) == 0) return mark_ready_round();
    auto deferral = replica_->no_sync();
    for (std::size_t step = 0; step <= deferred; ++step) {
      const bool is_last = step == deferred;
      const std::vector<Fault> faults = draw_faults();
      std::function<void()> own = [] {};
      if (is_last) {
        deferral.reset();
        own = [&] { reducer().finish(); };
      }
      bool fails_here = false;
      for (std::size_t r = 0; r < size(); ++r) {
        const Samples samples = draw_samples(1 + number(3));
        if (number(4) == 0) continue;  // this rank has none
        round_.add(r, samples, 1);
        const Fault fault = faults[r] == Fault::none ? Fault::none : Fault::backward;
        failed_ = failed_ || fault != Fault::none;
        if (!is_own(r)) continue;
        fails_here = fault != Fault::none;
        own = [this, samples, fault] { loss(samples, fault).backward(); };
      }
      if (is_last) {
        reduce_until_weighted(own);
      } else {
        EXPECT_EQ(throws(own), fails_here) << describe();
      }
    }
  }
  void mark_ready_round() {
    for (std::size_t i = 0; i < model_.all.size(); ++i) forget(i);
    std::vector<std::size_t> own;
    for (std::size_t r = 0; r < size(); ++r) {
      const Samples samples = draw_samples(1 + number(3));
      if (number(4) == 0) continue;
      round_.add(r, samples, 1);
      if (!is_own(r)) continue;
      own = round_.reached(samples);
      for (const std::size_t i : own) {
        write_gradient(model_.all[i].mutable_grad(), samples, i, 1, false);
      }
    }
    for (const std::size_t i : own) reducer().mark_ready(model_.all[i]);
    reduce_until_weighted([&] { reducer().finish(); });
  }
  // Weights that are refused leave gradients where they are.
  void reduce_until_weighted(const std::function<void()>& call) {
    const bool keeps = !failed_ && round_.is_weightless();
    reduce(call);
    if (!keeps) return;
    failed_ = false;
    for (double& weight : round_.weights) weight = 1 + draw_weight();
    reducer().set_weight(round_.weights[rank()]);
    reduce([&] { reducer().finish(); });
  }

  void batch_round() {
    const std::size_t deferred = number(3);
    const bool finishes = deferred > 0 && number(3) == 0;
    auto deferral = replica_->no_sync();
    for (std::size_t step = 0; step <= deferred; ++step) {
      const bool is_last = step == deferred;
      if (is_last) deferral.reset();
      if (is_last && finishes) {
        reduce([&] { reducer().finish(); });
        break;
      }
      const std::vector<Fault> faults = draw_faults();
      Samples own;
      BatchOptions options;
      bool fails_here = false;
      for (std::size_t r = 0; r < size(); ++r) {
        const Samples samples = draw_samples(number(4) == 0 ? 0 : 1 + number(6));
        const BatchOptions drawn{.parts = static_cast<std::int64_t>(1 + number(4)),
                                 .weight = samples.size() > 0 && number(2) == 0
                                               ? std::optional(draw_weight())
                                               : std::nullopt};
        round_.add_batch(r, samples, drawn, buffers_[r]);
        const bool fails = faults[r] != Fault::none && samples.size() > 0;
        failed_ = failed_ || fails;
        if (!is_own(r)) continue;
        own = samples;
        options = drawn;
        fails_here = fails;
      }
      const auto call = [&] {
        replica_->backward(
            own, [&](const Samples& some) { return batch_loss(some, faults[rank()]); }, options);
      };
      if (is_last) {
        reduce(call);
      } else {
        EXPECT_EQ(throws(call), fails_here) << describe();
      }
    }
    if (failed_) {
      buffers_ = buffers_before_;
      return;
    }
    if (round_.contributions.empty() || round_.total() == 0) return;
    Buffers mean;
    for (std::size_t r = 0; r < size(); ++r) {
      for (std::size_t k = 0; k < 3; ++k) {
        mean.average[k] += round_.weights[r] / round_.total() * buffers_[r].average[k];
      }
      mean.count = std::max(mean.count, buffers_[r].count);
    }
    std::fill(buffers_.begin(), buffers_.end(), mean);
  }

  void check(int round) {
    const std::string where =
        describe() + ", round " + std::to_string(round) + (failed_ ? ", failed" : "");
    for (std::size_t i = 0; i < model_.all.size(); ++i) {
      const Parameter& parameter = model_.all[i];
      if (const auto sum = failed_ ? std::nullopt : round_.reduced(i, parameter.value().size())) {
        if (!expected_[i]) expected_[i].emplace(sum->size());
        for (std::size_t k = 0; k < sum->size(); ++k) (*expected_[i])[k] += (*sum)[k];
      }
      const std::string name = "p" + std::to_string(i) + ", " + where;
      ASSERT_EQ(parameter.has_grad(), expected_[i].has_value()) << name;
      if (!parameter.has_grad()) continue;
      const Tensor found = parameter.grad().to(DType::f64);
      for (std::size_t k = 0; k < expected_[i]->size(); ++k) {
        const double number = found.data<double>()[k], expected = (*expected_[i])[k];
        ASSERT_TRUE(is_close(number, expected, parameter.dtype()))
            << name << ": " << number << " is not " << expected << ", trained "
            << parameter.requires_grad();
      }
    }
    const Buffers& own = buffers_[rank()];
    EXPECT_EQ(*model_.count.data<std::int64_t>(), own.count) << where;
    for (std::size_t k = 0; k < own.average.size(); ++k) {
      EXPECT_TRUE(is_close(model_.average.data<double>()[k], own.average[k], DType::f64)) << where;
    }
  }

  std::mt19937_64 random_;
  std::optional<Communicator> ranks_;
  DataParallelOptions options_;
  Model model_;
  std::vector<std::unique_ptr<Numbers>> borrowed_;
  std::unique_ptr<DataParallel> replica_;
  std::vector<std::optional<Numbers>> expected_;
  std::vector<Buffers> buffers_, buffers_before_;  // of all ranks
  Round round_;
  bool failed_ = false, had_batches_ = false;
  std::int64_t next_sample_ = 1;
  std::string where_, kind_, message_;
};

TEST(ReducerProperty, gradients_and_buffers_are_what_all_ranks_have_drawn) {
  // For a longer search, or to see one story again.
  const char* const first = std::getenv("LOCKSTEP_TEST_SEED");
  const char* const count = std::getenv("LOCKSTEP_TEST_SEEDS");
  const std::uint64_t begin = first != nullptr ? std::stoull(first) : 1;
  const std::uint64_t end = begin + (count != nullptr ? std::stoull(count) : 60);
  for (std::uint64_t seed = begin; seed < end; ++seed) {
    if (!Story(seed).run(8)) break;
  }
}

}  // namespace reducer_property_test
}  // namespace lockstep
