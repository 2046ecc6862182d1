#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/job.hpp"
#include "lockstep/autograd/parameter.hpp"

namespace lockstep {

/// What steps the parameters of a reducer in the course of a round, block by block. Of each block a rank
/// steps some lines.
class BucketStepper {
 public:
  /// Parameters whose lines follow each other, a whole number of each.
  using Block = std::vector<Parameter>;

  virtual ~BucketStepper() = default;

  /// The blocks of all rounds to come. Collective.
  virtual void plan(const std::vector<Block>& blocks) = 0;
  /// The lines of a block that a rank steps.
  virtual comm::LineRange part(std::size_t block, int rank) const = 0;
  /// Whether a parameter of a block is stepped in this round.
  virtual void begin(std::size_t block, std::size_t parameter, bool steps) = 0;
  /// Steps numbers of a parameter from `begin` on, which this rank has, if it is stepped.
  virtual void step(std::size_t block, std::size_t parameter, std::int64_t begin,
                    std::span<const std::byte> gradient) = 0;
  /// Where the values of slice k of n of a rank's part are, or belong, on this rank.
  virtual std::span<std::byte> values(std::size_t block, int rank, std::size_t k,
                                      std::size_t n) = 0;
  /// What keeps the memory of these values.
  virtual std::shared_ptr<void> memory() const = 0;
  /// All ranks have stepped slice k of n of their parts, and the node has their values.
  virtual void stepped(std::size_t block, std::size_t k, std::size_t n) = 0;
  /// All blocks are stepped on all ranks of the node. Collective.
  virtual void end() = 0;
  /// A parameter that is in no block has a gradient all the same. Collective.
  virtual void step(const Parameter& parameter) = 0;
};

}  // namespace lockstep
