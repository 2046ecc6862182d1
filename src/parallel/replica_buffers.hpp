#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "comm/reduction.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "parallel/part_sums.hpp"

namespace lockstep {

/// What becomes of the buffers of a model, such as running statistics, after each reduction of
/// gradients. With the policy `average`, numbers become the weighted mean of what ranks, or logical
/// replicas, have made of them, and counts the largest; what nobody has changed stays as it is.
class ReplicaBuffers {
 public:
  /// The tensors are those of the model. Collective.
  ReplicaBuffers(std::vector<Tensor> buffers, ReplicaBufferPolicy policy,
                 const Communicator& communicator, std::int64_t logical_replicas);

  /// From here on they change, until restore() or synchronise().
  void begin();
  /// Makes them what they were at begin(), if that has come before.
  void restore();
  /// The part of this rank that is under way, of so many samples, is over: the next one begins with
  /// what there was at begin().
  void end_part(double weight);
  /// Collective. `weight` is that of all samples of this rank.
  void synchronise(double weight);

 private:
  struct Note {
    enum Index : std::size_t { changed, positive_weight };
  };

  void average(double weight);
  void broadcast(double weight);
  void take_before();
  void give_before();
  bool changed() const;
  void write_numbers(double factor);
  void write_counts(bool first);

  std::vector<Tensor> buffers_;
  ReplicaBufferPolicy policy_;
  std::vector<Tensor> before_;
  std::vector<std::size_t> offsets_;
  std::vector<comm::Piece> pieces_;  // the last are the notes
  Communicator ranks_;
  comm::Parts parts_;
  PartSums sums_;
  std::optional<comm::Reduction> reduction_;
  std::size_t parts_done_ = 0;
  bool parts_changed_ = false;
  bool begun_ = false;
};

}  // namespace lockstep
