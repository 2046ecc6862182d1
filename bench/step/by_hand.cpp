// The training steps of ours.cpp as one would write them by hand for these networks alone: Eigen, a
// flat buffer each for parameters and gradients, MPI_Allreduce after the backward, one loop for the
// update. No library of ours takes part but for the initial values and the data.

#include <mpi.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <lockstep/comm/environment.hpp>
#include <lockstep/core/error.hpp>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "comm/check.hpp"
#include "program.hpp"
#include "step/by_hand_layers.hpp"
#include "step/networks.hpp"

namespace {

using namespace by_hand;
using lockstep::check_mpi;

enum class Reduction { at_once, one_a_parameter };

template <class T>
class Training {
 public:
  Training(const bench::Network& network, const lockstep::Communicator& ranks, Reduction reduction)
      : network_(network),
        communicator_(ranks.handle()),
        ranks_(ranks.size()),
        reduction_(reduction),
        batches_(network, ranks.rank()) {
    const auto model = bench::make_model(network);
    for (const auto& [name, parameter] : model.named_parameters()) {
      const auto numbers = parameter.value().template span<T>();
      values_.insert(values_.end(), numbers.begin(), numbers.end());
      sizes_.push_back(static_cast<int>(numbers.size()));
    }
    gradients_.resize(values_.size());
    moments_.resize(values_.size());
    if (network.adam) squares_.resize(values_.size());
    add_layers();
  }

  void step() {
    const lockstep::data::Batch& batch = batches_.next();
    forward(std::as_const(batch.inputs).template data<T>());
    if (network_.classifies) {
      cross_entropy(std::as_const(batch.targets).data<std::int64_t>());
    } else {
      squared_error(std::as_const(batch.targets).template data<T>());
    }
    backward(std::as_const(batch.inputs).template data<T>());
    reduce();
    if (network_.adam) {
      adam();
    } else {
      sgd();
    }
  }

 private:
  void add_layers() {
    std::size_t next = 0, offset = 0;
    const auto add = [&]<class L>(std::type_identity<L>, auto... arguments) {
      layers_.push_back(
          std::make_unique<L>(network_.batch, arguments..., &values_[offset], &gradients_[offset]));
      for (int i = 0; i < 2; ++i) offset += static_cast<std::size_t>(sizes_[next++]);
      const Index size = network_.batch * layers_.back()->outputs();
      results_.emplace_back(static_cast<std::size_t>(size));
      derivatives_.emplace_back(static_cast<std::size_t>(size));
    };
    if (network_.convolutional) {
      const auto& channels = bench::Network::channels;
      Index side = bench::Network::side;
      for (std::size_t i = 0; i + 1 < std::size(channels); ++i, side /= 2) {
        add(std::type_identity<Convolution<T>>(), channels[i], channels[i + 1], side);
      }
    }
    const auto& widths = network_.widths;
    const Activation between = network_.tanh ? Activation::tanh : Activation::relu;
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
      const bool last = i + 2 == widths.size();
      add(std::type_identity<Linear<T>>(), widths[i], widths[i + 1],
          last ? Activation::none : between);
    }
  }

  void forward(const T* x) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      layers_[i]->forward(x, results_[i].data());
      x = results_[i].data();
    }
  }

  void backward(const T* x) {
    for (std::size_t i = layers_.size(); i-- > 0;) {
      layers_[i]->backward(i > 0 ? results_[i - 1].data() : x, results_[i].data(),
                           derivatives_[i].data(), i > 0 ? derivatives_[i - 1].data() : nullptr);
    }
  }

  void cross_entropy(const std::int64_t* labels) {
    const Index rows = network_.batch, classes = network_.widths.back();
    const ConstMap<T> logits(results_.back().data(), rows, classes);
    Map<T> gradient(derivatives_.back().data(), rows, classes);
    loss_ = 0;
    for (Index row = 0; row < rows; ++row) {
      const T largest = logits.row(row).maxCoeff();
      auto p = gradient.row(row);
      p = (logits.row(row).array() - largest).exp();
      const T sum = p.sum();
      p /= sum * static_cast<T>(rows);
      p[labels[row]] -= 1 / static_cast<T>(rows);
      loss_ += std::log(sum) - (logits(row, labels[row]) - largest);
    }
    loss_ /= static_cast<T>(rows);
  }

  void squared_error(const T* targets) {
    using Numbers = Eigen::Array<T, Eigen::Dynamic, 1>;
    const auto size = static_cast<Index>(results_.back().size());
    const Eigen::Map<const Numbers> y(results_.back().data(), size), target(targets, size);
    Eigen::Map<Numbers> gradient(derivatives_.back().data(), size);
    gradient = y - target;
    loss_ = gradient.square().mean();
    gradient *= 2 / static_cast<T>(size);
  }

  // The sum: the update divides it.
  void reduce() {
    const auto all_reduce = [this](T* gradients, int size) {
      check_mpi(
          MPI_Allreduce(MPI_IN_PLACE, gradients, size,
                        std::is_same_v<T, float> ? MPI_FLOAT : MPI_DOUBLE, MPI_SUM, communicator_),
          "MPI_Allreduce");
    };
    T* gradients = gradients_.data();
    if (reduction_ == Reduction::at_once) {
      return all_reduce(gradients, static_cast<int>(gradients_.size()));
    }
    for (const int size : sizes_) {
      all_reduce(gradients, size);
      gradients += size;
    }
  }

  void sgd() {
    const auto scale = 1 / static_cast<T>(ranks_), lr = static_cast<T>(network_.lr),
               momentum = static_cast<T>(network_.momentum);
    const T* __restrict g = gradients_.data();
    T* __restrict m = moments_.data();
    T* __restrict x = values_.data();
    for (std::size_t i = 0; i < values_.size(); ++i) {
      m[i] = momentum * m[i] + scale * g[i];
      x[i] -= lr * m[i];
    }
  }

  void adam() {
    constexpr auto beta1 = static_cast<T>(0.9), beta2 = static_cast<T>(0.999),
                   eps = static_cast<T>(1e-8);
    ++steps_;
    const auto scale = 1 / static_cast<T>(ranks_);
    const auto lr = static_cast<T>(network_.lr / (1 - std::pow(beta1, steps_)));
    const auto root = static_cast<T>(1 / std::sqrt(1 - std::pow(beta2, steps_)));
    const T* __restrict g = gradients_.data();
    T* __restrict m = moments_.data();
    T* __restrict v = squares_.data();
    T* __restrict x = values_.data();
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const T gradient = scale * g[i];
      m[i] = beta1 * m[i] + (1 - beta1) * gradient;
      v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
      x[i] -= lr * m[i] / (std::sqrt(v[i]) * root + eps);
    }
  }

  bench::Network network_;
  MPI_Comm communicator_;
  int ranks_;
  Reduction reduction_;
  bench::Batches batches_;
  std::vector<int> sizes_;  // of the parameters
  std::vector<T> values_, gradients_, moments_, squares_;
  std::vector<std::unique_ptr<Layer<T>>> layers_;
  std::vector<std::vector<T>> results_, derivatives_;  // by layer
  int steps_ = 0;
  T loss_ = 0;
};

template <class T>
bench::SetUp step(const bench::Network& network, const lockstep::Communicator& ranks,
                  Reduction reduction) {
  return [&network, &ranks, reduction] {
    const auto training = std::make_shared<Training<T>>(network, ranks, reduction);
    return [training, &ranks](double seconds) -> bench::Measurement {
      return {1e3 * bench::median_times(ranks, seconds, {[&] { training->step(); }})[0]};
    };
  };
}

}  // namespace

int main(int argc, char** argv) {
  const lockstep::mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    const std::string how = argc == 2 ? argv[1] : "";
    if (how != "at-once" && how != "one-a-parameter") {
      throw lockstep::OptionError("usage: step_by_hand at-once|one-a-parameter");
    }
    const Reduction reduction = how == "at-once" ? Reduction::at_once : Reduction::one_a_parameter;
    const lockstep::Communicator world(MPI_COMM_WORLD);
    std::map<std::string, bench::SetUp> cases;
    for (const bench::Network& network : bench::networks()) {
      cases[network.name] = network.dtype == lockstep::DType::f64
                                ? step<double>(network, world, reduction)
                                : step<float>(network, world, reduction);
    }
    bench::serve(world, cases);
    return 0;
  });
}
