#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/format.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::checkpoint {

/// What this rank brings to a checkpoint.
struct Contribution {
  /// What all ranks must have alike. A text stands for each part of a tensor.
  StateDict alike;
  /// The tree of what not all ranks have, and of its tensors the whole shape, the range that this rank
  /// has (`offset` and `bytes`), and the checksum of these bytes.
  Header own;
  std::vector<Tensor> arrays;  ///< the bytes of own.tensors
};

/// NameError where two items have one name, or one has that of a rank.
void check_names(const std::vector<Item>& items);

/// NameError as check_names() says; StateError for a state that cannot be saved.
Contribution contribution_of(const std::vector<Item>& items, int rank);

/// Bytes of a tensor, which a rank has as an array of its contribution.
struct Source {
  int rank = 0;
  std::uint64_t array = 0;
  std::uint64_t offset = 0;  ///< in the tensor
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;
};

/// The state of all ranks.
struct Gathered {
  FlatState state;  ///< its tensors have numbers only where nothing is assembled
  struct Assembled {
    std::string path;
    DType dtype = DType::f32;
    Shape shape;
    std::vector<Source> sources = {};  ///< in the order of their numbers
  };
  std::vector<std::optional<Assembled>> assembled;  ///< of each tensor of the state
};

/// What rank 0 has, and the `own` of all ranks. StateError, which names ranks, where two of them have
/// something else in one place, or where numbers of a tensor are nobody's.
Gathered gather(StateDict alike, const std::vector<Header>& own);

}  // namespace lockstep::checkpoint
