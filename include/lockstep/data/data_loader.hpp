#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>

#include "lockstep/data/dataset.hpp"
#include "lockstep/data/distributed_sampler.hpp"

#pragma GCC visibility push(default)

namespace lockstep::data {

/// This rank's batches of a dataset, in the order of a sampler:
///
///     for (const Batch& batch : loader) …
///
/// runs through the rest of the current epoch, and the next epoch begins where the loop ends by
/// itself. A batch counts as consumed once the loop's body has it: after a break the next loop goes
/// on with the batch that follows, and so does a loader that restores a state saved in the body.
class DataLoader : public Stateful {
 public:
  class Iterator;

  /// The dataset must outlive the loader. OptionError where the sampler is for another number of
  /// samples.
  DataLoader(const Dataset& dataset, DistributedSampler sampler);
  DataLoader(Dataset&& dataset, DistributedSampler sampler) = delete;

  /// Takes the next batch from the sampler, so every call goes on by one. One loop at a time.
  Iterator begin();
  std::default_sentinel_t end() const noexcept { return {}; }

  std::int64_t batches_per_epoch() const noexcept { return sampler_.batches_per_epoch(); }
  std::int64_t epoch() const noexcept { return sampler_.epoch(); }
  DistributedSampler& sampler() noexcept { return sampler_; }
  const DistributedSampler& sampler() const noexcept { return sampler_; }

  /// The state of the sampler.
  StateDict state_dict() const override { return sampler_.state_dict(); }
  void check_restore(const StateDict& source) const override { sampler_.check_restore(source); }
  void restore(const StateDict& source) override { sampler_.restore(source); }

 private:
  std::optional<Batch> next();

  const Dataset* dataset_;
  DistributedSampler sampler_;
};

/// An input iterator over the batches of a DataLoader, which must outlive it.
class DataLoader::Iterator {
 public:
  using iterator_concept = std::input_iterator_tag;
  using value_type = Batch;
  using difference_type = std::ptrdiff_t;

  explicit Iterator(DataLoader& loader) : loader_(&loader), batch_(loader.next()) {}

  const Batch& operator*() const { return *batch_; }
  const Batch* operator->() const { return &*batch_; }
  Iterator& operator++() {
    batch_ = loader_->next();
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const Iterator& iterator, std::default_sentinel_t) {
    return !iterator.batch_.has_value();
  }

 private:
  DataLoader* loader_;
  std::optional<Batch> batch_;
};

inline DataLoader::Iterator DataLoader::begin() { return Iterator(*this); }

}  // namespace lockstep::data

#pragma GCC visibility pop
