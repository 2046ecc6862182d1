#include "state/records.hpp"

#include <fmt/format.h>

#include <algorithm>
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
    make_room(flat_.records, children.size());
    make_room(flat_.tensors, children.size());
    for (const auto& [key, child] : children) add(key, child, depth);
  }

  void add_children(const StateList& children, int depth) {
    for (const StateValue& child : children) add("", child, depth);
  }

  template <class T>
  static void make_room(std::vector<T>& items, std::size_t more) {
    const std::size_t needed = items.size() + more;
    if (needed > items.capacity()) items.reserve(std::max(needed, 2 * items.capacity()));
  }

  [[noreturn]] void fail(std::size_t index, const char* why) const {
    throw StateError(fmt::format("state '{}' {}", path_of(flat_.records, index), why));
  }

  FlatState flat_;
};

class Checker {
 public:
  Checker(const std::vector<StateRecord>& records, std::size_t tensors)
      : records_(records), tensors_(tensors) {}

  void check() {
    if (records_.empty() || records_[0].kind != StateRecord::dict) fail("expected a dict first");
    value(0);
    if (next_ != records_.size()) fail("records are left over");
    if (next_tensor_ != tensors_) fail("tensors are left over");
  }

 private:
  [[noreturn]] void fail(const char* why) const {
    throw StateError(fmt::format("the state records are damaged: {} (record {})", why, next_));
  }

  const StateRecord& next() {
    if (next_ == records_.size()) fail("a record is missing");
    return records_[next_++];
  }

  void value(int depth) {
    const StateRecord& record = next();
    if (depth > max_state_depth) fail("the nesting is too deep");
    if (record.kind > StateRecord::list) fail("a kind is unknown");
    if (record.kind == StateRecord::tensor) {
      if (record.number != next_tensor_ || next_tensor_ == tensors_) {
        fail("a tensor's number is wrong");
      }
      ++next_tensor_;
    }
    if (record.kind != StateRecord::dict && record.kind != StateRecord::list) return;
    const std::string* before = nullptr;
    for (std::uint64_t i = 0; i < record.number; ++i) {
      if (next_ < records_.size() && record.kind == StateRecord::dict) {
        const std::string& key = records_[next_].key;
        if (before != nullptr && *before >= key) fail("a key comes twice, or out of order");
        before = &key;
      }
      value(depth + 1);
    }
  }

  const std::vector<StateRecord>& records_;
  std::size_t tensors_;
  std::size_t next_ = 0;
  std::size_t next_tensor_ = 0;
};

// Of records that are checked.
class Builder {
 public:
  Builder(std::vector<StateRecord>& records, const std::vector<Tensor>& tensors)
      : next_(records.begin()), tensors_(tensors) {}

  StateValue value() {
    StateRecord& record = *next_++;
    switch (record.kind) {
      case StateRecord::boolean:
        return record.number != 0;
      case StateRecord::integer:
        return static_cast<std::int64_t>(record.number);
      case StateRecord::real:
        return std::bit_cast<double>(record.number);
      case StateRecord::text:
        return std::move(record.string);
      case StateRecord::tensor:
        return tensors_[static_cast<std::size_t>(record.number)];
      case StateRecord::dict: {
        StateDict dict;
        for (std::uint64_t left = record.number; left > 0; --left) {
          std::string& key = next_->key;
          dict.insert(std::move(key), value());
        }
        return dict;
      }
      default: {
        StateList list;
        for (std::uint64_t left = record.number; left > 0; --left) list.push_back(value());
        return list;
      }
    }
  }

 private:
  std::vector<StateRecord>::iterator next_;
  const std::vector<Tensor>& tensors_;
};

}  // namespace

FlatState flatten(const StateDict& state) { return Flattener().flatten(state); }

void check_records(const std::vector<StateRecord>& records, std::size_t tensors) {
  Checker(records, tensors).check();
}

StateDict unflatten(std::vector<StateRecord> records, const std::vector<Tensor>& tensors) {
  check_records(records, tensors.size());
  return std::move(Builder(records, tensors).value().as_dict());
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
