#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "lockstep/nn/module.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {

using Numbers = std::vector<double>;

inline std::uint64_t mix(std::uint64_t number) {
  number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9U;
  number = (number ^ (number >> 27)) * 0x94d049bb133111ebU;
  return number ^ (number >> 31);
}

/// In [-1, 1), of a sample and a place in the model.
inline double draw(std::int64_t sample, std::size_t place, std::size_t k) {
  const std::uint64_t bits =
      mix(mix(mix(static_cast<std::uint64_t>(sample) + 1) + place) + 0x9e37U * (k + 1));
  return static_cast<double>(bits >> 11) * 0x1p-52 - 1;
}

/// Samples that are numbered, [begin, end).
struct Samples {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  Samples slice(std::int64_t from, std::int64_t to) const { return {begin + from, begin + to}; }
};

struct Model : nn::Module {
  std::vector<Parameter> all;
  Tensor average = Tensor::zeros({3}, DType::f64), count = Tensor::zeros({}, DType::i64);

  void visit(nn::Visitor& visitor) override {
    for (std::size_t i = 0; i < all.size(); ++i) visitor("p" + std::to_string(i), all[i]);
    visitor("average", average);
    visitor("count", count);
  }
  Variable forward(const Variable& x) override { return x; }
};

struct Buffers {
  Numbers average = Numbers(3);
  std::int64_t count = 0;

  void move(const Samples& samples) {
    for (std::size_t k = 0; k < average.size(); ++k) {
      average[k] = 0.5 * average[k] + draw(samples.begin, 1000, k);
    }
    count += 1 + samples.begin % 2;
  }
};

inline double mean_gradient(const Samples& samples, std::size_t parameter, std::size_t k) {
  double sum = 0;
  for (std::int64_t s = samples.begin; s < samples.end; ++s) sum += draw(s, parameter, k);
  return sum / static_cast<double>(samples.size());
}

inline void write_gradient(Tensor& gradient, const Samples& samples, std::size_t parameter,
                           double factor, bool accumulate) {
  for (std::int64_t k = 0; k < gradient.size(); ++k) {
    const double number = factor * mean_gradient(samples, parameter, static_cast<std::size_t>(k));
    const auto add = [&](auto* target) {
      using T = std::remove_reference_t<decltype(target[k])>;
      target[k] = static_cast<T>((accumulate ? static_cast<double>(target[k]) : 0) + number);
    };
    if (gradient.dtype() == DType::f32) {
      add(gradient.data<float>());
    } else {
      add(gradient.data<double>());
    }
  }
}

enum class Fault { none, forward, backward };

/// Whose gradients are those numbers, for the parameters that it is to reach.
inline Variable draw_loss(const Model& model, const Samples& samples,
                          const std::vector<std::size_t>& reached, Fault fault) {
  std::vector<Variable> inputs;
  for (const std::size_t i : reached) inputs.push_back(model.all[i]);
  return autograd::record(Tensor::zeros({}, DType::f64), inputs,
                          [=](const Tensor& gradient, std::span<autograd::GradientSlot> slots) {
                            for (std::size_t k = 0; k < reached.size(); ++k) {
                              slots[k].receive([&](Tensor& target, bool accumulate) {
                                write_gradient(target, samples, reached[k], gradient.item(),
                                               accumulate);
                              });
                              if (fault == Fault::backward)
                                throw std::runtime_error("in the backward");
                            }
                          });
}

inline bool is_close(double found, double expected, DType dtype) {
  const double tolerance = dtype == DType::f32 ? 1e-4 : 1e-11;
  return std::abs(found - expected) <= tolerance * (1 + std::abs(expected));
}

/// What one backward of a rank adds.
struct Contribution {
  std::size_t rank;
  Samples samples;
  double weight;  // of the mean over the samples
};

/// What all ranks have drawn for a reduction, and what it is to come to.
struct Round {
  const DataParallelOptions* options = nullptr;
  bool is_plain = false;  // weights are set, and not those of batches
  std::vector<std::size_t> trained;
  std::vector<Contribution> contributions;
  Numbers weights;  // of the ranks

  static std::size_t size() { return static_cast<std::size_t>(world().size()); }
  bool is_mean() const { return options->reduction == GradientReduction::mean; }

  // Some of those that are trained, and at least one.
  std::vector<std::size_t> reached(const Samples& samples) const {
    const std::uint64_t first = mix(static_cast<std::uint64_t>(samples.begin));
    std::vector<std::size_t> some;
    for (std::size_t k = 0; k < trained.size(); ++k) {
      if (k == first % trained.size() || (mix(first + k) & 3U) != 0) some.push_back(trained[k]);
    }
    return some;
  }
  bool reaches(const Samples& samples, std::size_t parameter) const {
    const std::vector<std::size_t> all = reached(samples);
    return std::find(all.begin(), all.end(), parameter) != all.end();
  }

  void add(std::size_t r, const Samples& samples, double weight) {
    contributions.push_back({r, samples, weight});
  }
  void add_batch(std::size_t r, const Samples& samples, const BatchOptions& batch,
                 Buffers& buffers) {
    const auto count = static_cast<double>(samples.size());
    const double weight = batch.weight.value_or(count);
    weights[r] += weight;
    for (std::int64_t piece = 0; piece < batch.parts; ++piece) {
      const Samples some = samples.slice(samples.size() * piece / batch.parts,
                                         samples.size() * (piece + 1) / batch.parts);
      if (some.size() == 0) continue;
      add(r, some, weight * static_cast<double>(some.size()) / count);
      buffers.move(some);
    }
  }

  // The sum of what there is of a parameter, divided as the options want it.
  std::optional<Numbers> reduced(std::size_t i, std::int64_t length) const {
    Numbers sum(static_cast<std::size_t>(length));
    double reached_weight = 0;
    bool any = false;
    std::vector<bool> counted(size());
    for (const Contribution& some : contributions) {
      if (!reaches(some.samples, i)) continue;
      any = true;
      const double weight = is_plain ? weights[some.rank] : some.weight;
      for (std::size_t k = 0; k < sum.size(); ++k) {
        sum[k] += weight * mean_gradient(some.samples, i, k);
      }
      if (!is_plain || !counted[some.rank]) reached_weight += weight;
      counted[some.rank] = true;
    }
    if (!any) return std::nullopt;
    const bool leaves_out = options->missing == MissingGradients::leave_out && reached_weight > 0;
    const double divisor = !is_mean() ? 1 : leaves_out ? reached_weight : total();
    for (double& number : sum) number /= divisor;
    return sum;
  }

  double total() const { return std::accumulate(weights.begin(), weights.end(), 0.0); }
  bool is_weightless() const {
    for (const double weight : weights) {
      if (weight < 0) return true;
    }
    return is_mean() && total() == 0 && !contributions.empty();
  }
  bool is_missed(std::size_t parameter) const {
    for (std::size_t r = 0; r < size(); ++r) {
      bool any = false, all = true;
      for (const Contribution& some : contributions) {
        if (some.rank != r) continue;
        const bool has = reaches(some.samples, parameter);
        any = any || has;
        all = all && (has || some.weight == 0);
      }
      // A plain backward adds to those before, a batch is one by itself.
      if (weights[r] > 0 && (is_plain ? !any : !all)) return true;
    }
    return false;
  }
  bool is_refused() const {
    if (is_weightless()) return true;
    if (options->missing != MissingGradients::error) return false;
    return std::any_of(trained.begin(), trained.end(), [this](auto i) { return is_missed(i); });
  }
};

}  // namespace lockstep::testing
