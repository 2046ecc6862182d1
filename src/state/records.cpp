#include "state/records.hpp"

#include <fmt/format.h>

#include <bit>
#include <type_traits>
#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

class Flattener {
 public:
  FlatState flatten(const StateDict& state) {
    StateRecord& root = flat_.records.emplace_back();
    root.number = state.size();
    add_children(state, 1);
    return std::move(flat_);
  }

 private:
  void add(const std::string& key, const StateValue& value, int depth) {
    const std::size_t index = flat_.records.size();
    StateRecord& record = flat_.records.emplace_back();
    record.key = key;
    record.kind = static_cast<std::uint8_t>(value.variant().index());
    if (depth > max_state_depth) fail(index, "nests too deep");
    std::visit(
        [&]<class T>(const T& content) {
          if constexpr (std::is_same_v<T, double>) {
            record.number = std::bit_cast<std::uint64_t>(content);
          } else if constexpr (std::is_same_v<T, std::string>) {
            record.string = content;
          } else if constexpr (std::is_same_v<T, Tensor>) {
            if (!content.defined()) fail(index, "is an undefined tensor");
            record.number = flat_.tensors.size();
            flat_.tensors.push_back(content);
          } else if constexpr (std::is_same_v<T, TensorPart>) {
            fail(index, "is a part of a tensor, of which other ranks hold the rest");
          } else if constexpr (std::is_same_v<T, StateDict> || std::is_same_v<T, StateList>) {
            record.number = content.size();
            add_children(content, depth + 1);
          } else {
            record.number = static_cast<std::uint64_t>(content);
          }
        },
        value.variant());
  }

  void add_children(const StateDict& children, int depth) {
    for (const auto& [key, child] : children) add(key, child, depth);
  }

  void add_children(const StateList& children, int depth) {
    for (const StateValue& child : children) add("", child, depth);
  }

  [[noreturn]] void fail(std::size_t index, const char* why) const {
    throw StateError(fmt::format("state '{}' {}", path_of(flat_.records, index), why));
  }

  FlatState flat_;
};

class Builder {
 public:
  Builder(const std::vector<StateRecord>& records, const std::vector<Tensor>& tensors)
      : records_(records), tensors_(tensors) {}

  StateDict build() {
    if (records_.empty() || records_[0].kind != StateRecord::dict) fail("expected a dict first");
    StateValue root = value(0);
    if (next_ != records_.size()) fail("records are left over");
    if (next_tensor_ != tensors_.size()) fail("tensors are left over");
    return std::move(root.as_dict());
  }

 private:
  [[noreturn]] void fail(const char* why) const {
    throw StateError(fmt::format("the state records are damaged: {} (record {})", why, next_));
  }

  StateValue value(int depth) {
    if (next_ == records_.size()) fail("a record is missing");
    if (depth > max_state_depth) fail("the nesting is too deep");
    const StateRecord& record = records_[next_++];
    switch (record.kind) {
      case StateRecord::boolean:
        return record.number != 0;
      case StateRecord::integer:
        return static_cast<std::int64_t>(record.number);
      case StateRecord::real:
        return std::bit_cast<double>(record.number);
      case StateRecord::text:
        return record.string;
      case StateRecord::tensor:
        if (record.number != next_tensor_ || next_tensor_ == tensors_.size()) {
          fail("a tensor's number is wrong");
        }
        return tensors_[next_tensor_++];
      case StateRecord::dict: {
        StateDict dict;
        for (std::uint64_t i = 0; i < record.number; ++i) {
          if (next_ == records_.size()) fail("a record is missing");
          const std::string& key = records_[next_].key;
          if (!dict.insert(key, value(depth + 1))) fail("a key comes twice");
        }
        return dict;
      }
      case StateRecord::list: {
        StateList list;
        for (std::uint64_t i = 0; i < record.number; ++i) list.push_back(value(depth + 1));
        return list;
      }
      default:
        fail("a kind is unknown");
    }
  }

  const std::vector<StateRecord>& records_;
  const std::vector<Tensor>& tensors_;
  std::size_t next_ = 0;
  std::size_t next_tensor_ = 0;
};

}  // namespace

FlatState flatten(const StateDict& state) { return Flattener().flatten(state); }

StateDict unflatten(const std::vector<StateRecord>& records, const std::vector<Tensor>& tensors) {
  return Builder(records, tensors).build();
}

const std::string& PathWalk::next(const StateRecord& record) {
  while (!levels_.empty() && levels_.back().next == levels_.back().size) levels_.pop_back();
  depth_ = levels_.size();
  if (!levels_.empty()) {
    Level& level = levels_.back();
    path_ = level.prefix + (level.is_list ? std::to_string(level.next) : record.key);
    ++level.next;
  }
  if (record.kind == StateRecord::dict || record.kind == StateRecord::list) {
    const std::string prefix = levels_.empty() ? "" : path_ + "/";
    levels_.push_back({prefix, record.kind == StateRecord::list, record.number, 0});
  }
  return path_;
}

std::string path_of(const std::vector<StateRecord>& records, std::size_t index) {
  PathWalk walk;
  for (std::size_t i = 0; i < index; ++i) walk.next(records[i]);
  return walk.next(records[index]);
}

}  // namespace lockstep
