#include "checkpoint/scatter.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "checkpoint/gather.hpp"
#include "checkpoint/metadata.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {
namespace {

// Gives a tree, in which each tensor is its number, the tensors that this rank needs.
class Placer {
 public:
  Placer(const Header& header, Scattered& result) : header_(header), result_(result) {}

  // `wanted` is what the object has in that place, if anything.
  void place(StateValue& value, const StateValue* wanted) {
    if (std::holds_alternative<Tensor>(value.variant())) {
      const std::size_t number = number_of(value.as_tensor());
      const auto* part = wanted == nullptr ? nullptr : std::get_if<TensorPart>(&wanted->variant());
      value = part == nullptr ? whole(number) : part_of(number, *part);
    } else if (std::holds_alternative<StateDict>(value.variant())) {
      const auto* dict = wanted == nullptr ? nullptr : std::get_if<StateDict>(&wanted->variant());
      const StateDict none;
      auto next = (dict == nullptr ? none : *dict).begin();
      const auto end = (dict == nullptr ? none : *dict).end();
      for (auto& [key, child] : value.as_dict()) {  // both in the order of their keys
        while (next != end && next->first < key) ++next;
        place(child, next != end && next->first == key ? &next->second : nullptr);
      }
    } else if (std::holds_alternative<StateList>(value.variant())) {
      for (StateValue& child : value.as_list()) place(child, nullptr);
    }
  }

 private:
  StateValue whole(std::size_t number) {
    const TensorRecord& record = header_.tensors[number];
    Tensor tensor = Tensor::empty(shape_of(record), dtype_of(record));
    add(record, 0, tensor);
    return tensor;
  }

  StateValue part_of(std::size_t number, const TensorPart& part) {
    const TensorRecord& record = header_.tensors[number];
    const Shape shape = shape_of(record);
    const DType dtype = dtype_of(record);
    // Of another tensor than that of the file, it is the object that says what is wrong.
    if (shape != part.shape || dtype != part.numbers.dtype()) return whole(number);
    Tensor numbers = Tensor::empty(part.numbers.shape(), dtype);
    add(record, static_cast<std::uint64_t>(part.begin) * item_size(dtype), numbers);
    return TensorPart{.shape = shape, .begin = part.begin, .numbers = numbers};
  }

  void add(const TensorRecord& record, std::uint64_t offset, Tensor& tensor) {
    if (tensor.bytes() == 0) return;
    result_.targets.push_back({.begin = record.offset + offset,
                               .memory = {static_cast<std::byte*>(tensor.raw()), tensor.bytes()}});
  }

  const Header& header_;
  Scattered& result_;
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

[[noreturn]] void throw_unfit(const std::filesystem::path& path, const Item& item,
                              const std::string& why) {
  throw CheckpointError(
      fmt::format("the checkpoint '{}' does not fit '{}': {}", path.string(), item.name, why));
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

Scattered scattered(const Header& header, const std::vector<Item>& items, LoadMode mode,
                    const Communicator& communicator, const std::filesystem::path& path) {
  check_names(items);
  StateDict state = numbered_tree(header);
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
                    path.string(), fmt::join(result.report.unexpected, ", ")));
  }
  Placer placer(header, result);
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
      const StateValue wanted(item.object->state_dict());
      placer.place(*value, &wanted);
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
                const std::filesystem::path& path) {
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
