#include "checkpoint/scatter.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "checkpoint/gather.hpp"
#include "checkpoint/metadata.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

// Tensors of at most so many bytes share memory with what follows them in the file, up to so many bytes.
constexpr std::uint64_t small_bytes = std::uint64_t{1} << 14;
constexpr std::uint64_t shared_bytes = std::uint64_t{1} << 18;

// Gives trees, in which each tensor is its number, the tensors that this rank needs.
class Placer {
 public:
  Placer(const std::vector<TensorRecord>& tensors, Scattered& result)
      : tensors_(tensors), result_(result) {}

  // `wanted` is what the object has in the place of `value`.
  void place(StateValue& value, const StateValue& wanted) {
    whole_.clear();
    visit(value, &wanted);
    for (std::size_t begin = 0; begin < whole_.size();) {
      const std::size_t end = together(begin);
      allocate(std::span(whole_).subspan(begin, end - begin));
      begin = end;
    }
  }

 private:
  struct Whole {
    std::size_t number;
    StateValue* value;
  };

  void visit(StateValue& value, const StateValue* wanted) {
    if (std::holds_alternative<Tensor>(value.variant())) {
      const std::size_t number = number_of(value.as_tensor());
      const auto* part = wanted == nullptr ? nullptr : std::get_if<TensorPart>(&wanted->variant());
      // Of another tensor than that of the file, it is the object that says what is wrong.
      if (part != nullptr && fits(tensors_[number], *part)) {
        value = part_of(tensors_[number], *part);
      } else {
        whole_.push_back({number, &value});
      }
    } else if (std::holds_alternative<StateDict>(value.variant())) {
      const auto* dict = wanted == nullptr ? nullptr : std::get_if<StateDict>(&wanted->variant());
      const StateDict none;
      auto next = (dict == nullptr ? none : *dict).begin();
      const auto end = (dict == nullptr ? none : *dict).end();
      for (auto& [key, child] : value.as_dict()) {  // both in the order of their keys
        while (next != end && next->first < key) ++next;
        const bool is_wanted = next != end && next->first == key;
        visit(child, is_wanted ? &(next++)->second : nullptr);
      }
    } else if (std::holds_alternative<StateList>(value.variant())) {
      for (StateValue& child : value.as_list()) visit(child, nullptr);
    }
  }

  static bool fits(const TensorRecord& record, const TensorPart& part) {
    return record.shape == part.shape && dtype_of(record) == part.numbers.dtype();
  }

  TensorPart part_of(const TensorRecord& record, const TensorPart& wanted) {
    TensorPart part{.shape = wanted.shape,
                    .begin = wanted.begin,
                    .numbers = Tensor::empty(wanted.numbers.shape(), dtype_of(record))};
    add(record.offset + static_cast<std::uint64_t>(part.begin) * item_size(dtype_of(record)),
        part.numbers);
    return part;
  }

  // The end of those tensors from `begin` on that share memory.
  std::size_t together(std::size_t begin) const {
    std::size_t end = begin;
    const std::uint64_t limit = record(begin).offset + shared_bytes;
    do {
      ++end;
    } while (end < whole_.size() && whole_[end].number == whole_[end - 1].number + 1 &&
             record(end - 1).bytes <= small_bytes && record(end).bytes <= small_bytes &&
             record(end).offset < limit);
    return end;
  }

  // In memory that is laid out as the file is.
  void allocate(std::span<const Whole> wholes) {
    const TensorRecord& first = tensors_[wholes.front().number];
    const TensorRecord& last = tensors_[wholes.back().number];
    const auto bytes = static_cast<std::int64_t>(last.offset + last.bytes - first.offset);
    Tensor memory = Tensor::empty({bytes}, DType::u8);
    add(first.offset, memory);
    const auto owner = std::make_shared<Tensor>(memory);
    auto* const begin = static_cast<std::byte*>(memory.raw());
    for (const Whole& whole : wholes) {
      const TensorRecord& record = tensors_[whole.number];
      *whole.value =
          Tensor::of(owner, begin + (record.offset - first.offset), record.shape, dtype_of(record));
    }
  }

  void add(std::uint64_t begin, Tensor& memory) {
    if (memory.bytes() == 0) return;
    result_.targets.push_back(
        {.begin = begin, .memory = {static_cast<std::byte*>(memory.raw()), memory.bytes()}});
  }

  const TensorRecord& record(std::size_t whole) const { return tensors_[whole_[whole].number]; }

  const std::vector<TensorRecord>& tensors_;
  Scattered& result_;
  std::vector<Whole> whole_;
};

// The entry of the file for an item; null where there is none.
StateValue* find(StateDict& state, const Item& item, const Communicator& communicator) {
  StateDict* of_item = &state;
  if (item.scope == ItemScope::each_rank) {
    const std::string rank = rank_name(communicator.rank());
    if (!state.contains(rank)) return nullptr;
    of_item = &state[rank].as_dict();
  }
  return of_item->contains(item.name) ? &(*of_item)[item.name] : nullptr;
}

[[noreturn]] void throw_unfit(const std::string& path, const Item& item, const std::string& why) {
  throw CheckpointError(
      fmt::format("the checkpoint '{}' does not fit '{}': {}", path, item.name, why));
}

std::string why_missing(const StateDict& state, const Item& item,
                        const Communicator& communicator) {
  if (item.scope == ItemScope::each_rank) {
    return fmt::format("it has no state of rank {}, and there are {} ranks now",
                       communicator.rank(), communicator.size());
  }
  std::string why;
  try {
    static_cast<void>(state.at(item.name));
  } catch (const NameError& error) {  // it says which names there are
    why = error.what();
  }
  return why;
}

// The items of a file that nobody asks for.
std::vector<std::string> unexpected_items(const StateDict& state, const std::vector<Item>& items,
                                          int ranks) {
  std::set<std::string> expected;
  for (const Item& item : items) {
    if (item.scope != ItemScope::each_rank) {
      expected.insert(item.name);
      continue;
    }
    for (int rank = 0; rank < ranks; ++rank) expected.insert(rank_name(rank) + "/" + item.name);
  }
  std::vector<std::string> unexpected;
  const auto add = [&](const std::string& name) {
    if (!expected.contains(name)) unexpected.push_back(name);
  };
  for (const auto& [key, value] : state) {
    const auto* of_rank = std::get_if<StateDict>(&value.variant());
    if (!key.starts_with(rank_prefix) || of_rank == nullptr) {
      add(key);
      continue;
    }
    for (const auto& [name, child] : *of_rank) add(key + "/" + name);
  }
  return unexpected;
}

bool loads_exactly(const LoadOptions& options) {
  return options.mode != LoadMode::partial && options.prefix.empty() && !options.rename &&
         !options.convert_dtype;
}

lockstep::LoadOptions item_options(const LoadOptions& options) {
  return {.strict = options.mode != LoadMode::partial,
          .prefix = options.prefix,
          .rename = options.rename,
          .convert_dtype = options.convert_dtype};
}

}  // namespace

void Scattered::take(std::uint64_t begin, std::span<const std::byte> data) {
  const std::uint64_t end = begin + data.size();
  for (std::size_t i = next; i < targets.size() && targets[i].begin < end; ++i) {
    const Target& target = targets[i];
    const std::uint64_t target_end = target.begin + target.memory.size();
    const std::uint64_t from = std::max(begin, target.begin), to = std::min(end, target_end);
    if (from < to) {
      std::memcpy(target.memory.data() + (from - target.begin), data.data() + (from - begin),
                  to - from);
    }
    if (i == next && target_end <= end) ++next;
  }
}

Scattered scattered(Header header, const std::vector<Item>& items, LoadMode mode,
                    const Communicator& communicator, const std::string& path) {
  check_names(items);
  StateDict state = numbered_tree(std::move(header.records), header.tensors.size());
  Scattered result;
  result.report.metadata = take_metadata(state);
  if (!header.tensors.empty()) {
    result.data_bytes = header.tensors.back().offset + header.tensors.back().bytes;
  }
  result.report.unexpected = unexpected_items(state, items, communicator.size());
  if (mode == LoadMode::strict && !result.report.unexpected.empty()) {
    throw CheckpointError(
        fmt::format("the checkpoint '{}' has items that are not asked for: {}; LoadMode::subset "
                    "leaves them out",
                    path, fmt::join(result.report.unexpected, ", ")));
  }
  Placer placer(header.tensors, result);
  for (const Item& item : items) {
    std::optional<StateDict>& of_item = result.of_items.emplace_back();
    StateValue* value = find(state, item, communicator);
    if (value == nullptr) {
      if (mode != LoadMode::partial) {
        throw_unfit(path, item, why_missing(state, item, communicator));
      }
      result.report.missing.push_back(item.name);
      continue;
    }
    try {
      const StateValue wanted(item.object->wanted());
      placer.place(*value, wanted);
      of_item = std::move(value->as_dict());
    } catch (const Error& error) {
      throw_unfit(path, item, error.what());
    }
  }
  std::sort(result.targets.begin(), result.targets.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return result;
}

void check_load(Scattered& state, const std::vector<Item>& items, const LoadOptions& options,
                const std::string& path) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Item& item = items[i];
    if (!state.of_items[i]) continue;
    const auto add = [&item](std::vector<std::string>& to, const std::vector<std::string>& names) {
      for (const std::string& name : names) to.push_back(item.name + "/" + name);
    };
    try {
      if (loads_exactly(options)) {
        item.object->check_restore(*state.of_items[i]);
        continue;
      }
      const lockstep::LoadReport report =
          item.object->check_load(*state.of_items[i], item_options(options));
      add(state.report.missing, report.missing);
      add(state.report.unexpected, report.unexpected);
      add(state.report.kept, report.kept);
    } catch (const Error& error) {
      throw_unfit(path, item, error.what());
    }
  }
}

void load_items(const Scattered& state, const std::vector<Item>& items,
                const LoadOptions& options) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!state.of_items[i]) continue;
    if (loads_exactly(options)) {
      items[i].object->restore(*state.of_items[i]);
    } else {
      items[i].object->load_state_dict(*state.of_items[i], item_options(options));
    }
  }
}

}  // namespace lockstep::checkpoint
