#pragma once

#include <cstddef>
#include <cstdint>
#include <lockstep/core/dtype.hpp>
#include <lockstep/data/dataset.hpp>
#include <lockstep/nn/layers.hpp>
#include <lockstep/optim/named_optimizer.hpp>
#include <memory>
#include <string>
#include <vector>

namespace bench {

/// A network of the benchmarks, and how it is trained. torch_peer.py has the same.
struct Network {
  static constexpr std::int64_t side = 28, kernel = 3, pool = 2, channels[] = {1, 32, 64};

  std::string name;
  /// Of the fully connected layers: inputs, hidden layers, outputs.
  std::vector<std::int64_t> widths;
  std::int64_t batch;  ///< samples of each rank
  /// Before these layers come convolutions of images of `side` pixels squared, each with a ReLU and
  /// pooling.
  bool convolutional = false;
  bool tanh = false;       ///< between fully connected layers, and else ReLU
  bool classifies = true;  ///< cross-entropy, and else mean squared error
  bool adam = true;        ///< and else SGD with momentum
  /// So low that a network stays as it is, however long it is measured. One that learns these batches by
  /// heart has gradients, and one in which a unit dies a momentum, that vanish into denormal
  /// numbers, which take several times as long.
  double lr = 1e-8;
  double momentum = 0.9;
  lockstep::DType dtype = lockstep::DType::f32;
};

/// Those of the benchmark `step`: each in f32, and as NAME-f64.
const std::vector<Network>& networks();

/// With the same initial values in every program.
lockstep::nn::Sequential make_model(const Network& network);
std::unique_ptr<lockstep::optim::UpdateRule> make_rule(const Network& network);
lockstep::NamedOptimizer make_optimizer(const Network& network, const lockstep::nn::Module& model);
/// What is minimised.
lockstep::Variable loss(const Network& network, lockstep::nn::Module& model,
                        const lockstep::data::Batch& batch);

/// Random batches of a rank, in turns.
class Batches {
 public:
  Batches(const Network& network, int rank);

  const lockstep::data::Batch& next() { return batches_[count_++ % batches_.size()]; }

 private:
  std::vector<lockstep::data::Batch> batches_;
  std::size_t count_ = 0;
};

}  // namespace bench
