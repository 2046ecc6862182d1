#include "lockstep/state/state_dict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <type_traits>

#include "lockstep/core/error.hpp"

namespace lockstep {

StateDict::StateDict(std::initializer_list<std::pair<std::string, StateValue>> entries)
    : entries_(entries.begin(), entries.end()) {}

bool StateDict::contains(std::string_view key) const { return entries_.contains(key); }

StateValue& StateDict::operator[](std::string_view key) {
  const auto found = entries_.find(key);
  return found != entries_.end() ? found->second : entries_[std::string(key)];
}

bool StateDict::insert(std::string key, StateValue value) {
  const std::size_t before = entries_.size();
  entries_.emplace_hint(entries_.end(), std::move(key), std::move(value));
  return entries_.size() > before;
}

void StateDict::erase(std::string_view key) {
  const auto found = entries_.find(key);
  if (found != entries_.end()) entries_.erase(found);
}

const StateValue& StateDict::at(std::string_view key) const {
  const auto found = entries_.find(key);
  if (found != entries_.end()) return found->second;
  std::string known;
  constexpr std::size_t shown = 8;
  std::size_t count = 0;
  for (const auto& [name, value] : entries_) {
    if (count++ == shown) break;
    known += (known.empty() ? "'" : ", '") + name + "'";
  }
  if (entries_.size() > shown) known += fmt::format(" and {} more", entries_.size() - shown);
  throw NameError(fmt::format("no entry '{}' in the state dict, which has {}", key,
                              known.empty() ? "none" : known));
}

StateDict StateDict::clone() const {
  StateDict copy;
  for (const auto& [key, value] : entries_) copy.entries_.emplace(key, value.clone());
  return copy;
}

StateValue StateValue::clone() const {
  if (const auto* tensor = std::get_if<Tensor>(&value_)) return tensor->clone();
  if (const auto* part = std::get_if<TensorPart>(&value_)) {
    return TensorPart{part->shape, part->begin, part->numbers.clone()};
  }
  if (const auto* dict = std::get_if<StateDict>(&value_)) return dict->clone();
  if (const auto* list = std::get_if<StateList>(&value_)) {
    StateList copy;
    for (const StateValue& value : *list) copy.push_back(value.clone());
    return copy;
  }
  return *this;
}

std::string_view StateValue::kind() const noexcept {
  constexpr std::string_view kinds[] = {"a bool",   "an integer", "a double", "a string",
                                        "a tensor", "a dict",     "a list",   "a part of a tensor"};
  return kinds[value_.index()];
}

void StateValue::throw_wrong_kind(std::string_view expected) const {
  throw StateError(fmt::format("expected {} in the state dict, found {}", expected, kind()));
}

bool bit_equal(const StateValue& a, const StateValue& b) {
  if (a.variant().index() != b.variant().index()) return false;
  return std::visit(
      [&b]<class T>(const T& value) {
        const T& other = std::get<T>(b.variant());
        if constexpr (std::is_same_v<T, double>) {
          return std::bit_cast<std::uint64_t>(value) == std::bit_cast<std::uint64_t>(other);
        } else if constexpr (std::is_same_v<T, StateList>) {
          return std::equal(value.begin(), value.end(), other.begin(), other.end(),
                            [](const auto& x, const auto& y) { return bit_equal(x, y); });
        } else if constexpr (std::is_same_v<T, TensorPart>) {
          return value.shape == other.shape && value.begin == other.begin &&
                 bit_equal(value.numbers, other.numbers);
        } else if constexpr (std::is_same_v<T, Tensor> || std::is_same_v<T, StateDict>) {
          return bit_equal(value, other);
        } else {
          return value == other;
        }
      },
      a.variant());
}

bool bit_equal(const StateDict& a, const StateDict& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && bit_equal(x.second, y.second);
  });
}

}  // namespace lockstep
