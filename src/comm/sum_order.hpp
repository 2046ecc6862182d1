#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lockstep::comm {

/// The sum of `size` numbers from number `begin` on, in a binary tree: `size` is a power of two of
/// which `begin` is a multiple, and each half is such a sum.
struct Subtree {
  std::int64_t begin = 0;
  std::int64_t size = 1;

  /// Whether this and `next` are the two halves of a larger one.
  bool is_left_of(const Subtree& next) const noexcept {
    return size == next.size && begin + size == next.begin && begin % (2 * size) == 0;
  }
};

/// In which order several inputs are combined, as a program for a stack: each step pushes its input,
/// and then replaces the two uppermost by their sum, `merges` times. What is left are the outputs.
struct SumOrder {
  struct Step {
    std::uint32_t input;
    std::uint32_t merges;
  };

  /// Sums that a stack of combine() holds at most.
  static constexpr std::size_t max_depth = 32;

  std::vector<Step> steps;
  std::size_t outputs = 0;

  /// What the order makes of one number an input; it has one output.
  double sum(std::span<const double> inputs) const;
  /// The most that is on the stack at a time.
  std::size_t depth() const noexcept;

  /// Each group one after the other, and then their sums one after the other.
  static SumOrder nested(const std::vector<std::vector<int>>& groups);
  /// ((0 + 1) + 2) + …
  static SumOrder chain(std::size_t inputs);
  /// All that can be summed in the tree. What is left is appended to `left`, in ascending order.
  static SumOrder tree(const std::vector<Subtree>& inputs, std::vector<Subtree>& left);
};

/// The subtrees that sums of the numbers [begin, end) come down to.
std::vector<Subtree> subtrees_of(std::int64_t begin, std::int64_t end);

}  // namespace lockstep::comm
