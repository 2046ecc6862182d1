#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "lockstep/state/state_dict.hpp"

namespace lockstep {

/// One value of a state dict as plain data. The tree is the sequence of its values in depth-first
/// order, each followed by its children. These numbers are written to files and never change.
struct StateRecord {
  enum Kind : std::uint8_t {
    boolean = 0,
    integer = 1,
    real = 2,
    text = 3,
    tensor = 4,
    dict = 5,
    list = 6,
  };

  std::string key;  ///< in the dict above it; empty in a list
  std::uint8_t kind = dict;
  /// A boolean or integer; the bits of a real; the index of a tensor; the number of children.
  std::uint64_t number = 0;
  std::string string;

  template <class Archive>
  void serialize(Archive& archive, unsigned int) {
    archive& key& kind& number& string;
  }
};

struct FlatState {
  std::vector<StateRecord> records;
  std::vector<Tensor> tensors;
};

/// How deep a tree may nest: a value of the outermost dict is at depth 1.
inline constexpr int max_state_depth = 64;

/// StateError, naming the entry, for an undefined tensor, a part of one, and a tree that nests too deep.
FlatState flatten(const StateDict& state);

/// StateError, saying which record, where the records are not a tree of so many tensors: where keys of a dict
/// do not come once and in order, a tensor is not there or not named once in order, or values nest too deep.
void check_records(const std::vector<StateRecord>& records, std::size_t tensors);

/// The tree again, after check_records().
StateDict unflatten(std::vector<StateRecord> records, const std::vector<Tensor>& tensors);

/// Goes through the records of a tree in their order, and knows where each one is.
class PathWalk {
 public:
  /// Goes to the next record. Returns the keys and indices down to it, joined by '/'.
  const std::string& next(const StateRecord& record);
  /// How many keys and indices these are.
  std::size_t depth() const noexcept { return depth_; }

 private:
  struct Level {
    std::string prefix;
    bool is_list;
    std::uint64_t size, next;
  };
  std::vector<Level> levels_;
  std::string path_;
  std::size_t depth_ = 0;
};

/// Where a record of a tree is, for messages.
std::string path_of(const std::vector<StateRecord>& records, std::size_t index);

}  // namespace lockstep
