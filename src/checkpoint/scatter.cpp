#include "checkpoint/scatter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "checkpoint/gather.hpp"
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
      for (auto& [key, child] : value.as_dict()) {
        place(child, dict != nullptr && dict->contains(key) ? &dict->at(key) : nullptr);
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

StateValue& find(StateDict& state, const std::string& key, const Item& item,
                 const Communicator& communicator) {
  if (state.contains(key)) return state[key];
  if (item.scope != ItemScope::each_rank) static_cast<void>(state.at(key));
  throw NameError(fmt::format("it has no state of rank {}, and there are {} ranks now",
                              communicator.rank(), communicator.size()));
}

[[noreturn]] void throw_unfit(const std::filesystem::path& path, const Item& item,
                              const Error& error) {
  throw CheckpointError(fmt::format("the checkpoint '{}' does not fit '{}': {}", path.string(),
                                    item.name, error.what()));
}

}  // namespace

void check_restore(const Scattered& state, const std::vector<Item>& items,
                   const std::filesystem::path& path) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    try {
      items[i].object->check_restore(state.of_items[i]);
    } catch (const Error& error) {
      throw_unfit(path, items[i], error);
    }
  }
}

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

Scattered scattered(const Header& header, const std::vector<Item>& items,
                    const Communicator& communicator, const std::filesystem::path& path) {
  check_names(items);
  StateDict state = numbered_tree(header);
  Scattered result;
  if (!header.tensors.empty()) {
    result.data_bytes = header.tensors.back().offset + header.tensors.back().bytes;
  }
  Placer placer(header, result);
  for (const Item& item : items) {
    try {
      StateDict* of_item = &state;
      if (item.scope == ItemScope::each_rank) {
        of_item =
            &find(state, fmt::format("rank.{}", communicator.rank()), item, communicator).as_dict();
      }
      StateValue& value = find(*of_item, item.name, item, communicator);
      const StateValue wanted(item.object->state_dict());
      placer.place(value, &wanted);
      result.of_items.push_back(value.as_dict());
    } catch (const Error& error) {
      throw_unfit(path, item, error);
    }
  }
  std::sort(result.targets.begin(), result.targets.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  return result;
}

}  // namespace lockstep::checkpoint
