#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep::data {

struct DistributedSamplerOptions {
  bool shuffle = true;
  std::uint64_t seed = 0;
  bool drop_last = false;  ///< leave out the last global batch where it is not full
  /// That of DataParallelOptions: parts of a batch are then cut as it says. 0 for none.
  std::int64_t logical_replicas = 0;
};

/// Which samples each rank gets, epoch by epoch. An epoch is one order of all samples, the same on
/// all ranks and on any number of them, cut into global batches; rank r of R gets the part [n·r/R,
/// n·(r+1)/R) of a global batch of n. So a sample comes up once an epoch, on one rank, and the
/// parts of a batch differ by at most one sample. A part is empty where n < R, which the last
/// global batch of an epoch can bring about; its rank has to take part in the step all the same.
/// With L logical replicas, a global batch is cut into L parts in this way, and rank r gets the parts
/// [L·r/R, L·(r+1)/R).
///
/// Shuffled by Fisher-Yates (Durstenfeld, CACM 7(7), 1964) with random numbers of (seed, epoch).
class DistributedSampler : public Stateful {
 public:
  /// OptionError where the dataset is empty, the batch size is not in [1, dataset_size], or the
  /// rank not in [0, ranks), or the logical replicas are not a power of two ≥ ranks. Local: nothing is exchanged, so ranks must be given the same numbers.
  DistributedSampler(std::int64_t dataset_size, std::int64_t global_batch_size, int rank, int ranks,
                     const DistributedSamplerOptions& options = {});

  /// The indices of this rank's part of the next global batch; nothing, once, at the end of an
  /// epoch, after which the next epoch begins.
  std::optional<std::vector<std::int64_t>> next();

  std::int64_t batches_per_epoch() const noexcept;
  std::int64_t dataset_size() const noexcept { return dataset_size_; }
  std::int64_t global_batch_size() const noexcept { return global_batch_size_; }
  std::int64_t epoch() const noexcept { return epoch_; }
  /// Samples of this epoch that all ranks together have been given.
  std::int64_t position() const noexcept { return position_; }

  /// Goes to the start of an epoch. OptionError for a negative one.
  void set_epoch(std::int64_t epoch);

  /// The epoch and the position, and what they depend on. Does not depend on rank or number of
  /// ranks: an epoch goes on with exactly the samples that are left on however many ranks restore
  /// it, in global batches of whatever size.
  StateDict state_dict() const override;
  /// StateError where `source` belongs to another dataset size, seed or order.
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  std::int64_t samples_before(std::int64_t n, int rank) const noexcept;
  void make_order();

  std::int64_t dataset_size_;
  std::int64_t global_batch_size_;
  int rank_;
  int ranks_;
  DistributedSamplerOptions options_;
  std::int64_t epoch_ = 0;
  std::int64_t position_ = 0;
  std::vector<std::int64_t> order_;  // of the samples in epoch order_epoch_
  std::int64_t order_epoch_ = -1;
};

}  // namespace lockstep::data

#pragma GCC visibility pop
