// Random stories of three reducers on random groups of ranks, the same on all ranks, against sums over
// what the members have drawn.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm/placements.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "parallel/drawn_gradients.hpp"
#include "parallel/rank_groups.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace several_reducers_property_test {

using namespace testing;

/// A reducer, and what all ranks know of the gradients of its members.
struct Shared {
  using Gradients = std::vector<std::optional<Numbers>>;

  bool is_member() const { return group->is_member(); }
  bool has_member(int rank) const {
    return std::find(group->members.begin(), group->members.end(), rank) != group->members.end();
  }
  bool is_settled() const {
    return !marked && !spoilt && std::all_of(added.begin(), added.end(), [](const auto& own) {
      return std::none_of(own.begin(), own.end(),
                          [](const auto& some) { return some.has_value(); });
    });
  }
  void forget_added() {
    added.assign(static_cast<std::size_t>(world().size()), Gradients(parameters.size()));
    marked = spoilt = false;
  }
  void add(int rank, std::size_t i, const Numbers& numbers) {
    std::optional<Numbers>& sum = added[static_cast<std::size_t>(rank)][i];
    if (!sum) sum.emplace(numbers.size());
    for (std::size_t k = 0; k < numbers.size(); ++k) (*sum)[k] += numbers[k];
  }
  void reduce() {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Numbers sum(static_cast<std::size_t>(parameters[i].size()));
      double divisor = 0;
      bool any = false;
      for (const int rank : group->members) {
        const double weight = weights[static_cast<std::size_t>(rank)];
        const std::optional<Numbers>& own = added[static_cast<std::size_t>(rank)][i];
        divisor += weight;
        if (!own) continue;
        any = true;
        for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += weight * (*own)[k];
      }
      if (!any) continue;
      if (!expected[i] || marked) expected[i].emplace(sum.size());
      for (std::size_t k = 0; k < sum.size(); ++k) {
        (*expected[i])[k] += sum[k] / (options.reduction == GradientReduction::mean ? divisor : 1);
      }
    }
    forget_added();
  }

  std::optional<RankGroup> group;
  GradientReducerOptions options;
  std::vector<Parameter> parameters;
  std::optional<GradientReducer> reducer;
  std::shared_ptr<const void> deferral;
  bool deferred = false, marked = false;
  bool spoilt = false;           // a rank has thrown under no_sync()
  Numbers weights;               // of all ranks
  Gradients expected;            // that are reduced
  std::vector<Gradients> added;  // by each rank since
};

class Story {
 public:
  explicit Story(std::uint64_t seed) : random_(seed), seed_(seed) {
    for (Shared& shared : all_) make(shared);
  }

  bool run(int steps) {
    for (int step = 0; step < steps; ++step) {
      where_ = "seed " + std::to_string(seed_) + ", step " + std::to_string(step);
      make_step();
      for (std::size_t s = 0; s < all_.size(); ++s) check(s);
      if (world().all_reduce(std::int64_t{::testing::Test::HasFailure()}) > 0) return false;
    }
    for (Shared& shared : all_) end(shared);
    return true;
  }

 private:
  std::size_t number(std::size_t below) {
    return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
  }
  // Some of those, in any order, and at least one.
  template <class T>
  std::vector<T> some_of(std::vector<T> list) {
    std::shuffle(list.begin(), list.end(), random_);
    list.resize(1 + number(list.size()));
    return list;
  }

  void make(Shared& shared) {
    const auto placements = arrangements();
    shared.group.emplace(some_of(every(1, 0, world().size())),
                         placements[number(placements.size())].options);
    shared.options = {
        .bucket_bytes = std::size_t{1} << number(13),
        .reduction = number(3) == 0 ? GradientReduction::sum : GradientReduction::mean};
    shared.parameters.clear();
    std::vector<NamedParameter> named;
    for (std::size_t i = 0, count = 1 + number(5); i < count; ++i) {
      const auto length = static_cast<std::int64_t>(1 + number(300));
      shared.parameters.emplace_back(Tensor::zeros({length}, DType::f64));
      named.emplace_back("p" + std::to_string(i), shared.parameters.back());
    }
    shared.weights.assign(static_cast<std::size_t>(world().size()), 1);
    shared.expected.assign(shared.parameters.size(), std::nullopt);
    shared.forget_added();
    shared.deferred = false;
    if (shared.is_member()) shared.reducer.emplace(named, *shared.group->ranks, shared.options);
  }
  static void end(Shared& shared) {
    shared.deferral.reset();
    shared.reducer.reset();
    shared.group->close();
  }

  void make_step() {
    Shared& shared = all_[number(all_.size())];
    switch (number(16)) {
      case 0:
        if (!shared.marked) defer(shared);
        break;
      case 1:
      case 2:
        finish(shared);
        break;
      case 3:
        if (!shared.marked) discard(shared);
        break;
      case 4:
        if (!shared.marked) set_weights(shared);
        break;
      case 5:
        if (shared.is_settled() && !shared.deferred) mark(shared);
        break;
      case 6:
        if (shared.is_settled()) zero_grad(shared);
        break;
      case 7:
        // Whatever is under way.
        end(shared);
        make(shared);
        break;
      default:
        backward();
    }
  }

  void defer(Shared& shared) {
    shared.deferred = !shared.deferred;
    if (!shared.is_member()) return;
    shared.deferral = shared.deferred ? shared.reducer->no_sync() : nullptr;
  }
  void finish(Shared& shared) {
    expect_throws(shared.is_member() && shared.spoilt, [&] {
      if (shared.is_member()) shared.reducer->finish();
    });
    shared.spoilt ? shared.forget_added() : shared.reduce();
  }
  void discard(Shared& shared) {
    shared.forget_added();
    if (shared.is_member()) shared.reducer->discard();
  }
  void set_weights(Shared& shared) {
    for (double& weight : shared.weights) weight = 0.5 + static_cast<double>(number(4));
    if (!shared.is_member()) return;
    shared.reducer->set_weight(shared.weights[static_cast<std::size_t>(world().rank())]);
  }
  void zero_grad(Shared& shared) {
    for (std::size_t i = 0; i < shared.parameters.size(); ++i) {
      if (number(2) == 0) continue;
      shared.expected[i].reset();
      if (shared.is_member()) shared.parameters[i].zero_grad();
    }
  }

  std::vector<std::size_t> reached(const Shared& shared) {
    std::vector<std::size_t> indices(shared.parameters.size());
    for (std::size_t i = 0; i < indices.size(); ++i) indices[i] = i;
    return some_of(indices);
  }
  Samples next_sample() {
    ++samples_;
    return {samples_, samples_ + 1};
  }
  static void add(Shared& shared, int rank, std::size_t i, const Samples& sample) {
    Numbers numbers;
    for (std::int64_t k = 0; k < shared.parameters[i].size(); ++k) {
      numbers.push_back(mean_gradient(sample, i, static_cast<std::size_t>(k)));
    }
    shared.add(rank, i, numbers);
  }

  void mark(Shared& shared) {
    for (const int rank : shared.group->members) {
      const Samples sample = next_sample();
      for (const std::size_t i : reached(shared)) {
        add(shared, rank, i, sample);
        if (rank != world().rank()) continue;
        write_gradient(shared.parameters[i].mutable_grad(), sample, i, 1, false);
        shared.reducer->mark_ready(shared.parameters[i]);
      }
    }
    shared.marked = true;
  }

  // One that reaches several reducers, in the same order on all ranks.
  void backward() {
    std::vector<std::size_t> chosen;
    for (const std::size_t s : some_of(std::vector<std::size_t>{0, 1, 2})) {
      if (!all_[s].marked) chosen.push_back(s);
    }
    std::vector<Variable> inputs;
    std::vector<std::pair<std::size_t, Samples>> own;  // parameter and sample of each input
    std::set<int> members;
    for (const std::size_t s : chosen) {
      Shared& shared = all_[s];
      for (const int rank : shared.group->members) {
        members.insert(rank);
        const Samples sample = next_sample();
        for (const std::size_t i : reached(shared)) {
          add(shared, rank, i, sample);
          if (rank != world().rank()) continue;
          inputs.push_back(shared.parameters[i]);
          own.emplace_back(i, sample);
        }
      }
    }
    std::set<int> failed;  // ranks on which it throws
    const std::size_t written = number(12);
    if (number(6) == 0 && !members.empty()) {
      failed.insert(
          *std::next(members.begin(), static_cast<std::ptrdiff_t>(number(members.size()))));
    }
    const bool fails_here = failed.contains(world().rank());
    const auto call = [&] {
      if (inputs.empty()) return;
      autograd::record(Tensor::zeros({}, DType::f64), inputs,
                       [&](const Tensor& gradient, std::span<autograd::GradientSlot> slots) {
                         for (std::size_t k = 0; k < slots.size(); ++k) {
                           if (fails_here && k == written) break;
                           slots[k].receive([&](Tensor& target, bool accumulate) {
                             write_gradient(target, own[k].second, own[k].first, gradient.item(),
                                            accumulate);
                           });
                         }
                         if (fails_here) throw std::runtime_error("in the backward");
                       })
          .backward();
    };
    // An error goes on to all members of a reducer, and from them to the reducers after it.
    for (const std::size_t s : chosen) {
      Shared& shared = all_[s];
      const bool meets_error =
          std::any_of(failed.begin(), failed.end(), [&](int r) { return shared.has_member(r); });
      if (shared.deferred) {
        shared.spoilt = shared.spoilt || meets_error;
      } else if (shared.spoilt || meets_error) {
        failed.insert(shared.group->members.begin(), shared.group->members.end());
        shared.forget_added();
      } else {
        shared.reduce();
      }
    }
    expect_throws(failed.contains(world().rank()), call);
  }

  void expect_throws(bool expected, const std::function<void()>& call) const {
    std::string message;
    bool has_thrown = false;
    try {
      call();
    } catch (const std::exception& error) {
      has_thrown = true;
      message = error.what();
    }
    EXPECT_EQ(has_thrown, expected) << where_ << ": " << message;
  }

  void check(std::size_t s) const {
    const Shared& shared = all_[s];
    if (!shared.is_member() || !shared.is_settled()) return;
    for (std::size_t i = 0; i < shared.parameters.size(); ++i) {
      const std::string name =
          where_ + ", reducer " + std::to_string(s) + ", p" + std::to_string(i);
      const std::optional<Numbers>& expected = shared.expected[i];
      ASSERT_EQ(shared.parameters[i].has_grad(), expected.has_value()) << name;
      if (!expected) continue;
      const double* found = shared.parameters[i].grad().data<double>();
      for (std::size_t k = 0; k < expected->size(); ++k) {
        ASSERT_TRUE(is_close(found[k], (*expected)[k], DType::f64))
            << name << ": " << found[k] << " is not " << (*expected)[k];
      }
    }
  }

  std::mt19937_64 random_;
  std::uint64_t seed_;
  std::vector<Shared> all_ = std::vector<Shared>(3);
  std::int64_t samples_ = 0;
  std::string where_;
};

TEST(SeveralReducersProperty, gradients_are_what_the_members_of_each_have_drawn) {
  // For a longer search, or to see one story again.
  const char* const first = std::getenv("LOCKSTEP_TEST_SEED");
  const char* const count = std::getenv("LOCKSTEP_TEST_SEEDS");
  const std::uint64_t begin = first != nullptr ? std::stoull(first) : 1;
  const std::uint64_t end = begin + (count != nullptr ? std::stoull(count) : 15);
  for (std::uint64_t seed = begin; seed < end; ++seed) {
    if (!Story(seed).run(40)) break;
  }
}

}  // namespace several_reducers_property_test
}  // namespace lockstep
