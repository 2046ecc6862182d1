#include "checkpoint/gather.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "checkpoint/metadata.hpp"
#include "lockstep/core/error.hpp"
#include "state/parts.hpp"
#include "state/state_hashes.hpp"

namespace lockstep::checkpoint {
namespace {

void check_part(const TensorPart& part, const std::string& key) {
  const std::int64_t end = part.begin + (part.numbers.defined() ? part.numbers.size() : 0);
  if (part.numbers.defined() && part.begin >= 0 && end <= part.shape.size()) return;
  throw StateError(fmt::format("'{}': expected a part of {} numbers, found numbers {} to {}", key,
                               part.shape.size(), part.begin, end));
}

struct Range {
  Shape shape;
  std::int64_t begin;
};

// Makes tensors of parts, and notes which, in the order in which they are flattened.
void take_ranges(StateValue& value, const std::string& key, std::vector<Range>& ranges) {
  if (const auto* part = std::get_if<TensorPart>(&value.variant())) {
    check_part(*part, key);
    ranges.push_back({part->shape, part->begin});
    value = Tensor(part->numbers);
  } else if (const auto* tensor = std::get_if<Tensor>(&value.variant())) {
    ranges.push_back({tensor->shape(), 0});
  } else if (std::holds_alternative<StateDict>(value.variant())) {
    for (auto& [name, child] : value.as_dict()) take_ranges(child, name, ranges);
  } else if (std::holds_alternative<StateList>(value.variant())) {
    for (StateValue& child : value.as_list()) take_ranges(child, key, ranges);
  }
}

}  // namespace

void check_names(const std::vector<Item>& items) {
  std::set<std::string> names;
  for (const Item& item : items) {
    if (!names.insert(item.name).second) {
      throw NameError(fmt::format("two items of the checkpoint are called '{}'", item.name));
    }
    if (item.name.starts_with(rank_prefix)) {
      throw NameError(
          fmt::format("an item of the checkpoint is called '{}': names that begin with "
                      "'{}' are those of ranks",
                      item.name, rank_prefix));
    }
    if (item.name == metadata_name) {
      throw NameError(
          fmt::format("an item of the checkpoint is called '{}', which is the name of what "
                      "SaveOptions::metadata says",
                      item.name));
    }
  }
}

Contribution contribution_of(const std::vector<Item>& items, int rank) {
  check_names(items);
  Contribution result;
  StateDict own;
  for (const Item& item : items) {
    StateDict state = item.object->state_dict();
    if (item.scope == ItemScope::each_rank) {
      StateValue& of_rank = own[rank_name(rank)];
      of_rank.as_dict()[item.name] = std::move(state);
    } else if (item.scope == ItemScope::distributed) {
      own[item.name] = std::move(state);
    } else {
      StateDict parts = split_parts(state);
      result.alike[item.name] = std::move(state);
      if (!parts.empty()) own[item.name] = std::move(parts);
    }
  }
  StateValue tree(std::move(own));
  std::vector<Range> ranges;
  take_ranges(tree, "", ranges);
  FlatState flat = flatten(tree.as_dict());
  result.own.records = std::move(flat.records);
  for (std::size_t i = 0; i < flat.tensors.size(); ++i) {
    const Tensor& tensor = flat.tensors[i];
    TensorRecord& record = result.own.tensors.emplace_back(
        record_of(tensor.dtype(), ranges[i].shape, checksum(tensor)));
    record.offset = static_cast<std::uint64_t>(ranges[i].begin) * item_size(tensor.dtype());
    record.bytes = tensor.bytes();
  }
  result.arrays = std::move(flat.tensors);
  return result;
}

namespace {

class Merger {
 public:
  explicit Merger(StateDict alike) : merged_(std::move(alike)) {}

  void add(int rank, const Header& own) {
    rank_ = rank;
    own_ = &own;
    merge(merged_, numbered_tree(own.records, own.tensors.size()), "");
  }

  Gathered finish() {
    Gathered result;
    StateValue tree(std::move(merged_));
    place(tree, result.assembled);
    result.state = flatten(tree.as_dict());
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& path, const std::string& why) const {
    throw StateError(fmt::format("'{}' of rank {}: {}", path, rank_, why));
  }

  void merge(StateDict& into, const StateDict& from, const std::string& prefix) {
    for (const auto& [key, value] : from) {
      const bool is_new = !into.contains(key);
      merge(into[key], is_new, value, prefix + key);
    }
  }

  void merge(StateValue& into, bool is_new, const StateValue& from, const std::string& path) {
    if (std::holds_alternative<Tensor>(from.variant())) return add_source(into, is_new, from, path);
    if (std::holds_alternative<StateDict>(from.variant())) {
      if (is_new) into = StateDict();
      check_kind(into, from, path);
      merge(into.as_dict(), from.as_dict(), path + "/");
    } else if (std::holds_alternative<StateList>(from.variant())) {
      const StateList& list = from.as_list();
      if (is_new) into = StateList(list.size());
      check_kind(into, from, path);
      if (into.as_list().size() != list.size()) {
        fail(path, fmt::format("expected a list of {} as on other ranks, found {}",
                               into.as_list().size(), list.size()));
      }
      for (std::size_t i = 0; i < list.size(); ++i) {
        merge(into.as_list()[i], is_new, list[i], fmt::format("{}/{}", path, i));
      }
    } else if (is_new) {
      into = from;
    } else if (!bit_equal(into, from)) {
      fail(path, "another rank has another value");
    }
  }

  void check_kind(const StateValue& into, const StateValue& from, const std::string& path) const {
    if (into.variant().index() == from.variant().index()) return;
    fail(path, fmt::format("expected {} as on other ranks, found {}", into.kind(), from.kind()));
  }

  // A part stands for what is assembled in its place, by number.
  void add_source(StateValue& into, bool is_new, const StateValue& from, const std::string& path) {
    const std::size_t array = number_of(from.as_tensor());
    const TensorRecord& record = own_->tensors[array];
    const Shape shape = record.shape;
    const DType dtype = dtype_of(record);
    if (is_new || std::holds_alternative<std::string>(into.variant())) {
      into = TensorPart{
          .shape = shape, .begin = static_cast<std::int64_t>(assembled_.size()), .numbers = {}};
      assembled_.push_back({.path = path, .dtype = dtype, .shape = shape});
    }
    if (!std::holds_alternative<TensorPart>(into.variant())) {
      fail(path, fmt::format("expected {} as on other ranks, found a tensor", into.kind()));
    }
    Gathered::Assembled& assembled = assembled_[static_cast<std::size_t>(into.as_part().begin)];
    if (assembled.dtype != dtype || assembled.shape != shape) {
      fail(path,
           fmt::format("expected {} {} as on other ranks, found {} {}", to_string(assembled.dtype),
                       to_string(assembled.shape), to_string(dtype), to_string(shape)));
    }
    assembled.sources.push_back({.rank = rank_,
                                 .array = array,
                                 .offset = record.offset,
                                 .bytes = record.bytes,
                                 .checksum = record.checksum});
  }

  // Puts the sources in order, each number from one of them.
  static void tile(Gathered::Assembled& assembled) {
    std::vector<Source>& sources = assembled.sources;
    const std::uint64_t item = item_size(assembled.dtype);
    const auto whole = static_cast<std::uint64_t>(assembled.shape.size()) * item;
    const bool is_empty = whole == 0;
    std::erase_if(sources, [&](const Source& source) { return source.bytes == 0 && !is_empty; });
    std::stable_sort(sources.begin(), sources.end(),
                     [](const Source& a, const Source& b) { return a.offset < b.offset; });
    std::vector<Source> used;
    std::uint64_t end = 0;
    for (const Source& source : sources) {
      if (!used.empty() && source.offset == used.back().offset &&
          source.bytes == used.back().bytes) {
        if (source.checksum == used.back().checksum) continue;
        throw StateError(fmt::format("ranks {} and {} have different numbers of '{}'",
                                     used.back().rank, source.rank, assembled.path));
      }
      if (source.offset < end) {
        throw StateError(fmt::format("ranks {} and {} both have number {} of '{}', in other parts",
                                     used.back().rank, source.rank, source.offset / item,
                                     assembled.path));
      }
      if (source.offset > end) break;
      end = source.offset + source.bytes;
      used.push_back(source);
    }
    if (end < whole) {
      throw StateError(fmt::format("no rank has number {} of '{}', which is of {} numbers",
                                   end / item, assembled.path, assembled.shape.size()));
    }
    sources = std::move(used);
  }

  // Makes tensors of what is assembled, and notes of each tensor, in the order in which they are
  // flattened, whether it is.
  void place(StateValue& value, std::vector<std::optional<Gathered::Assembled>>& assembled) {
    if (const auto* part = std::get_if<TensorPart>(&value.variant())) {
      Gathered::Assembled& own = assembled_[static_cast<std::size_t>(part->begin)];
      tile(own);
      assembled.emplace_back(std::move(own));
      value = Tensor::zeros({});
    } else if (std::holds_alternative<Tensor>(value.variant())) {
      assembled.emplace_back();
    } else if (std::holds_alternative<StateDict>(value.variant())) {
      for (auto& [key, child] : value.as_dict()) place(child, assembled);
    } else if (std::holds_alternative<StateList>(value.variant())) {
      for (StateValue& child : value.as_list()) place(child, assembled);
    }
  }

  StateDict merged_;
  std::vector<Gathered::Assembled> assembled_;
  int rank_ = 0;
  const Header* own_ = nullptr;
};

}  // namespace

Gathered gather(StateDict alike, const std::vector<Header>& own) {
  Merger merger(std::move(alike));
  for (std::size_t rank = 0; rank < own.size(); ++rank) {
    merger.add(static_cast<int>(rank), own[rank]);
  }
  return merger.finish();
}

}  // namespace lockstep::checkpoint
