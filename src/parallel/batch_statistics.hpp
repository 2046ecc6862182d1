#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/parallel/data_parallel.hpp"

namespace lockstep {

/// Sums the statistics of a model's BatchNorms over all ranks. Every sum is one message of a fixed
/// size, that says which layer it is of; so ranks that have no samples can take part in those of the
/// others without running the model: by finish(), which goes on until no rank sums any more.
class BatchStatistics : public std::enable_shared_from_this<BatchStatistics> {
 public:
  /// `weight` is asked for in each backward. Collective.
  BatchStatistics(const Communicator& communicator, std::size_t most_channels,
                  std::function<double()> weight);

  /// For the layer of that number.
  std::shared_ptr<nn::StatisticsReducer> reducer(std::size_t layer);

  /// This rank has no more to sum in this step, be it since it has failed. Returns whether a sum has
  /// thrown since another rank had. Collective.
  bool finish(bool failed);
  /// Sums are refused from now on: copies of layers may outlive what they were summed for.
  void end() noexcept { weight_ = nullptr; }

 private:
  class Layer;
  /// StateError after end().
  void check_going() const;
  void sum(std::size_t layer, std::span<double> numbers);
  double weight() const;
  /// Whether any rank has summed.
  bool exchange();

  Communicator ranks_;
  std::function<double()> weight_;
  std::vector<double> message_;
  bool interrupted_ = false;  // by another rank's failure
};

}  // namespace lockstep
