#pragma once

#include <mpi.h>

#include <cmath>
#include <cstddef>
#include <map>
#include <vector>

#include "lockstep/autograd/parameter.hpp"

namespace lockstep::testing {

/// Parameters by index, with gradients that are averaged over all ranks by hand: what the library
/// is compared with shares nothing of its optimizers and its reducer.
class PlainParameters {
 public:
  PlainParameters(std::vector<Parameter> parameters, MPI_Comm communicator)
      : parameters_(std::move(parameters)), communicator_(communicator) {
    for (const Parameter& parameter : parameters_) {
      gradients_.emplace_back(static_cast<std::size_t>(parameter.size()), 0.0F);
    }
  }

  std::size_t size() const { return parameters_.size(); }
  float* value(std::size_t index) { return parameters_[index].mutable_value().data<float>(); }
  const std::vector<float>& gradient(std::size_t index) const { return gradients_[index]; }

  /// Adds the mean over ranks of what the last backward left, and forgets that.
  void accumulate() {
    int ranks = 1;
    MPI_Comm_size(communicator_, &ranks);
    for (std::size_t i = 0; i < size(); ++i) {
      std::vector<float> sum(gradients_[i].size());
      MPI_Allreduce(parameters_[i].grad().data<float>(), sum.data(), static_cast<int>(sum.size()),
                    MPI_FLOAT, MPI_SUM, communicator_);
      for (std::size_t k = 0; k < sum.size(); ++k) {
        gradients_[i][k] += sum[k] / static_cast<float>(ranks);
      }
      parameters_[i].zero_grad();
    }
  }

 private:
  std::vector<Parameter> parameters_;
  MPI_Comm communicator_;
  std::vector<std::vector<float>> gradients_;
};

struct PlainGroup {
  std::vector<std::size_t> members;
  double lr = 1e-3;
  double momentum = 0;  // of PlainSGD alone
};

struct PlainOptimizer {
  virtual ~PlainOptimizer() = default;
  virtual void step(PlainParameters& parameters) = 0;

  std::vector<PlainGroup> groups;
};

/// torch.optim.SGD with momentum.
struct PlainSGD : PlainOptimizer {
  void step(PlainParameters& parameters) override {
    for (const PlainGroup& group : groups) {
      for (const std::size_t i : group.members) {
        const std::vector<float>& gradient = parameters.gradient(i);
        const bool first = !momentum_buffer.contains(i);
        std::vector<float>& buffer = momentum_buffer[i];
        buffer.resize(gradient.size());
        for (std::size_t k = 0; k < gradient.size(); ++k) {
          buffer[k] =
              first ? gradient[k] : static_cast<float>(group.momentum) * buffer[k] + gradient[k];
          parameters.value(i)[k] -= static_cast<float>(group.lr) * buffer[k];
        }
      }
    }
  }

  std::map<std::size_t, std::vector<float>> momentum_buffer;
};

/// torch.optim.Adam with its default betas and eps.
struct PlainAdam : PlainOptimizer {
  void step(PlainParameters& parameters) override {
    constexpr float beta1 = 0.9F, rest1 = static_cast<float>(1 - 0.9);
    constexpr float beta2 = 0.999F, rest2 = static_cast<float>(1 - 0.999);
    constexpr float eps = 1e-8F;
    ++steps;
    const double correction1 = 1 - std::pow(0.9, steps), correction2 = 1 - std::pow(0.999, steps);
    for (const PlainGroup& group : groups) {
      for (const std::size_t i : group.members) {
        const std::vector<float>& gradient = parameters.gradient(i);
        std::vector<float>&m = exp_avg[i], &v = exp_avg_sq[i];
        m.resize(gradient.size());
        v.resize(gradient.size());
        for (std::size_t k = 0; k < gradient.size(); ++k) {
          m[k] = beta1 * m[k] + rest1 * gradient[k];
          v[k] = beta2 * v[k] + rest2 * gradient[k] * gradient[k];
          const float m_hat = m[k] / static_cast<float>(correction1);
          const float v_hat = v[k] / static_cast<float>(correction2);
          parameters.value(i)[k] -= static_cast<float>(group.lr) * m_hat / (std::sqrt(v_hat) + eps);
        }
      }
    }
  }

  int steps = 0;
  std::map<std::size_t, std::vector<float>> exp_avg, exp_avg_sq;
};

}  // namespace lockstep::testing
