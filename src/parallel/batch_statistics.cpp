#include "parallel/batch_statistics.hpp"

#include <algorithm>
#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

// What a message begins with; the sums over ranks tell whether all that sum do so for the same.
enum Place : std::size_t { active, call_number, call_squared, failures, first_number };

}  // namespace

class BatchStatistics::Layer : public nn::StatisticsReducer {
 public:
  Layer(std::shared_ptr<BatchStatistics> all, std::size_t layer)
      : all_(std::move(all)), layer_(layer) {}

  void sum(std::span<double> numbers) override { all_->sum(layer_, numbers); }
  double weight() const override { return all_->weight(); }

 private:
  std::shared_ptr<BatchStatistics> all_;
  std::size_t layer_;
};

// The longest sums are those of a backward, of two numbers a channel.
BatchStatistics::BatchStatistics(const Communicator& communicator, std::size_t most_channels,
                                 std::function<double()> weight)
    : ranks_(communicator.duplicate()),
      weight_(std::move(weight)),
      message_(first_number + 2 * most_channels + 1) {}

std::shared_ptr<nn::StatisticsReducer> BatchStatistics::reducer(std::size_t layer) {
  return std::make_shared<Layer>(shared_from_this(), layer);
}

double BatchStatistics::weight() const {
  check_going();
  return weight_();
}

void BatchStatistics::check_going() const {
  if (weight_ != nullptr) return;
  throw StateError(
      "a BatchNorm sums its statistics for a DataParallel that has gone: one of its copies, which "
      "set_statistics_reducer(nullptr) makes independent, or a backward of before");
}

bool BatchStatistics::exchange() {
  ranks_.all_reduce(std::span<double>(message_));
  return message_[active] > 0;
}

void BatchStatistics::sum(std::size_t layer, std::span<double> numbers) {
  check_going();
  const auto number = static_cast<double>(layer * message_.size() + numbers.size());
  std::fill(message_.begin(), message_.end(), 0);
  message_[active] = 1;
  message_[call_number] = number;
  message_[call_squared] = number * number;
  std::copy(numbers.begin(), numbers.end(), message_.begin() + first_number);
  exchange();
  if (message_[failures] > 0) {
    interrupted_ = true;
    throw StateError("another rank has failed, and sums no statistics with this one any more");
  }
  // By the inequality of Cauchy and Schwarz, equal only where all are.
  const double ranks = message_[active];
  if (message_[call_number] != ranks * number ||
      message_[call_squared] != ranks * number * number) {
    throw StateError(
        "the ranks sum the statistics of different layers: each must call the layers of its model "
        "in "
        "the same order");
  }
  std::copy_n(message_.begin() + first_number, numbers.size(), numbers.begin());
}

bool BatchStatistics::finish(bool has_failed) {
  bool others_go_on = true;
  while (others_go_on) {
    std::fill(message_.begin(), message_.end(), 0);
    message_[failures] = has_failed ? 1 : 0;
    others_go_on = exchange();
  }
  return std::exchange(interrupted_, false);
}

}  // namespace lockstep
