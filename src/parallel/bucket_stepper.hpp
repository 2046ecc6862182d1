#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/job.hpp"
#include "lockstep/autograd/parameter.hpp"

namespace lockstep {

/// What steps the parameters of a reducer in the course of a round, bucket by bucket.
class BucketStepper {
 public:
  /// Of a bucket, in the order of memory; those without numbers come before what lies in their place.
  struct Item {
    Parameter parameter;
    std::size_t offset = 0;  ///< of the gradient in a segment
    std::size_t note = 0;    ///< offset of the ItemNote in the notes
  };
  using Bucket = std::vector<Item>;

  virtual ~BucketStepper() = default;

  /// The buckets of all rounds to come. Collective.
  virtual void plan(const std::vector<Bucket>& buckets) = 0;
  /// What takes the reduced gradients of this rank's share of a bucket, and the lines of that.
  virtual comm::ShardSink& sink(std::size_t bucket) = 0;
  virtual comm::LineRange share(std::size_t bucket) const = 0;
  /// All ranks of the node have stepped their shares of the bucket.
  virtual void stepped(std::size_t bucket) = 0;
  /// All buckets are stepped on all ranks of the node. Collective.
  virtual void end() = 0;
  /// A parameter that is in no bucket has a gradient all the same. Collective.
  virtual void step(const Parameter& parameter) = 0;
};

}  // namespace lockstep
