#include "lockstep/data/distributed_sampler.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/core/logical_replicas.hpp"
#include "lockstep/core/part_begin.hpp"
#include "lockstep/tensor/random.hpp"

namespace lockstep::data {
namespace {

void check_batch_size(std::int64_t batch, std::int64_t dataset, int ranks) {
  if (batch < 1)
    throw OptionError(fmt::format("expected a global batch size ≥ 1, found {}", batch));
  if (batch <= dataset) return;
  const std::string size =
      batch % ranks == 0
          ? fmt::format("batch size {} per rank × {} ranks = {}", batch / ranks, ranks, batch)
          : fmt::format("global batch size {}", batch);
  throw OptionError(fmt::format("{} exceeds the {} samples", size, dataset));
}

template <class T>
void check_equal(std::string_view what, const T& state, const T& own) {
  if (state == own) return;
  throw StateError(fmt::format("the state of the data sampler has {} {}, but this sampler has {}",
                               what, state, own));
}

}  // namespace

DistributedSampler::DistributedSampler(std::int64_t dataset_size, std::int64_t global_batch_size,
                                       int rank, int ranks,
                                       const DistributedSamplerOptions& options)
    : dataset_size_(dataset_size),
      global_batch_size_(global_batch_size),
      rank_(rank),
      ranks_(ranks),
      options_(options) {
  if (ranks < 1 || rank < 0 || rank >= ranks) {
    throw OptionError(fmt::format("rank {} is not one of {} ranks", rank, ranks));
  }
  if (dataset_size < 1) {
    throw OptionError(
        fmt::format("expected a dataset with samples, found {} of them", dataset_size));
  }
  check_batch_size(global_batch_size, dataset_size, ranks);
  check_logical_replicas(options.logical_replicas, ranks);
}

// Samples of a global batch of n that the ranks before `rank` have.
std::int64_t DistributedSampler::samples_before(std::int64_t n, int rank) const noexcept {
  const std::int64_t parts = options_.logical_replicas;
  if (parts == 0) return part_begin(n, rank, ranks_);
  return part_begin(n, part_begin(parts, rank, ranks_), parts);
}

std::optional<std::vector<std::int64_t>> DistributedSampler::next() {
  const std::int64_t left = dataset_size_ - position_;
  if (left < (options_.drop_last ? global_batch_size_ : 1)) {
    ++epoch_;
    position_ = 0;
    return std::nullopt;
  }
  if (order_epoch_ != epoch_) make_order();
  const std::int64_t n = std::min(global_batch_size_, left);
  const auto batch = order_.begin() + position_;
  std::vector<std::int64_t> part(batch + samples_before(n, rank_),
                                 batch + samples_before(n, rank_ + 1));
  position_ += n;
  return part;
}

std::int64_t DistributedSampler::batches_per_epoch() const noexcept {
  const bool partial = !options_.drop_last && dataset_size_ % global_batch_size_ != 0;
  return dataset_size_ / global_batch_size_ + (partial ? 1 : 0);
}

void DistributedSampler::make_order() {
  order_epoch_ = -1;
  order_.resize(static_cast<std::size_t>(dataset_size_));
  std::iota(order_.begin(), order_.end(), 0);
  if (options_.shuffle) {
    const RandomKey key =
        RandomKey(options_.seed).fold("shuffle").fold(static_cast<std::uint64_t>(epoch_));
    for (std::size_t last = order_.size() - 1; last > 0; --last) {
      std::swap(order_[last], order_[key.below(last + 1, last)]);
    }
  }
  order_epoch_ = epoch_;
}

void DistributedSampler::set_epoch(std::int64_t epoch) {
  if (epoch < 0) throw OptionError(fmt::format("expected an epoch ≥ 0, found {}", epoch));
  epoch_ = epoch;
  position_ = 0;
}

StateDict DistributedSampler::state_dict() const {
  return {{"epoch", epoch_},
          {"position", position_},
          {"seed", options_.seed},
          {"shuffle", options_.shuffle},
          {"dataset_size", dataset_size_},
          {"global_batch_size", global_batch_size_},
          {"logical_replicas", options_.logical_replicas}};
}

void DistributedSampler::check_restore(const StateDict& source) const {
  const std::int64_t epoch = source.at("epoch").as_int();
  const std::int64_t position = source.at("position").as_int();
  check_equal("dataset size", source.at("dataset_size").as_int(), dataset_size_);
  check_equal("seed", static_cast<std::uint64_t>(source.at("seed").as_int()), options_.seed);
  check_equal("shuffle", source.at("shuffle").as_bool(), options_.shuffle);
  if (source.contains("logical_replicas")) {  // checkpoints of before have none
    check_equal("logical replicas", source.at("logical_replicas").as_int(),
                options_.logical_replicas);
  }
  if (epoch < 0 || position < 0 || position > dataset_size_) {
    throw StateError(
        fmt::format("the state of the data sampler is damaged: epoch {}, position {} of {} samples",
                    epoch, position, dataset_size_));
  }
}

void DistributedSampler::restore(const StateDict& source) {
  check_restore(source);
  epoch_ = source.at("epoch").as_int();
  position_ = source.at("position").as_int();
}

}  // namespace lockstep::data
