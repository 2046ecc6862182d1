#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/data/dataset.hpp"
#include "lockstep/state/named_tensors.hpp"
#include "lockstep/tensor/random.hpp"

#pragma GCC visibility push(default)

namespace lockstep::train {

/// Alike on all ranks.
struct ReservoirOptions {
  DType input_dtype = DType::f32;
  DType target_dtype = DType::f32;
  std::uint64_t seed = 0;
};

/// What a simulation shows in the course of its steps, to train on: a random sample of all
/// snapshots so far, in memory of a fixed size. A snapshot is an input and the target that belongs
/// to it. The rows of the reservoir are divided evenly among the ranks, and each has a random
/// sample of those snapshots that this rank was shown, each with the same probability (Vitter,
/// "Random sampling with a reservoir", ACM TOMS 11(1), 1985, algorithm R).
///
/// Ranks may see different numbers of snapshots, or none: a batch is drawn of all that any of them
/// has seen, each with the same probability, so a rank has a part of it that is in proportion to
/// what it has seen.
///
/// Its state is a part of each tensor on each rank, for a checkpoint that any number of ranks can
/// load. A share that comes from ranks which had kept more or less of what they had seen is then
/// drawn anew, in proportion to what each row stands for.
class Reservoir : public Stateful {
 public:
  /// For `capacity` snapshots over all ranks, with inputs and targets of the given shapes.
  /// Collective. OptionError on all ranks where the capacity is less than the number of ranks, or
  /// where arguments are not alike on all.
  Reservoir(std::int64_t capacity, const Shape& input, const Shape& target,
            const Communicator& communicator, const ReservoirOptions& options = {});

  /// Shows n snapshots: inputs of (n, input…) and targets of (n, target…), which are copied as far
  /// as they are kept. Local: each rank shows what it has, when it likes. ShapeError or DTypeError
  /// for others; nothing has changed then.
  void add(const Tensor& inputs, const Tensor& targets);

  /// This rank's part of a batch of `samples` snapshots of all ranks, for
  /// DataParallel::backward(batch, loss); empty on a rank that has seen none. No snapshot comes
  /// twice in a batch unless it is larger than what is kept of its rank. Collective, with one short
  /// all-reduce. OptionError on all ranks unless samples ≥ 1 and the same on all; StateError on all
  /// where no rank has seen a snapshot.
  data::Batch draw(std::int64_t samples);

  std::int64_t capacity() const noexcept { return capacity_; }
  /// Snapshots that this rank keeps.
  std::int64_t size() const noexcept { return size_; }
  /// Snapshots that this rank was shown. After a load on other ranks, what its share stands for.
  std::int64_t seen() const noexcept { return seen_; }

  /// "inputs" and "targets", "weights" (how many snapshots a row stands for; 0 for one that is
  /// empty), and "draws".
  StateDict state_dict() const override;
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 private:
  std::int64_t row_of_next();
  std::vector<std::int64_t> choose_rows(std::int64_t count);
  NamedTensors tensors(const Tensor& weights) const;
  void draw_anew(std::vector<double> weights);

  Communicator communicator_;
  std::int64_t capacity_;
  std::int64_t begin_ = 0;   // of this rank's rows among those of all
  Tensor inputs_, targets_;  // of this rank's rows
  RandomKey key_;            // of all ranks
  std::int64_t size_ = 0;
  std::int64_t seen_ = 0;
  std::int64_t draws_ = 0;
  std::vector<std::int64_t> drawn_in_;  // for each row, the last draw that has taken it
};

}  // namespace lockstep::train

#pragma GCC visibility pop
