#include "lockstep/state/state_dict.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <type_traits>

#include "lockstep/core/error.hpp"

namespace lockstep {

StateDict::StateDict() = default;
StateDict::StateDict(const StateDict& other) = default;
StateDict::StateDict(StateDict&& other) noexcept = default;
StateDict& StateDict::operator=(const StateDict& other) = default;
StateDict& StateDict::operator=(StateDict&& other) noexcept = default;
StateDict::~StateDict() = default;

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

StateValue::StateValue() : value_(StateDict()) {}
StateValue::StateValue(bool value) : value_(value) {}
StateValue::StateValue(std::int64_t value) : value_(value) {}
StateValue::StateValue(double value) : value_(value) {}
StateValue::StateValue(std::string value) : value_(std::move(value)) {}
StateValue::StateValue(std::string_view value) : value_(std::string(value)) {}
StateValue::StateValue(const char* value) : value_(std::string(value)) {}
StateValue::StateValue(Tensor value) : value_(std::move(value)) {}
StateValue::StateValue(TensorPart value) : value_(std::move(value)) {}
StateValue::StateValue(StateDict value) : value_(std::move(value)) {}
StateValue::StateValue(StateList value) : value_(std::move(value)) {}
StateValue::StateValue(const StateValue& other) = default;
StateValue::StateValue(StateValue&& other) noexcept = default;
StateValue& StateValue::operator=(const StateValue& other) = default;
StateValue& StateValue::operator=(StateValue&& other) noexcept = default;
StateValue::~StateValue() = default;

template <class T>
const T& StateValue::get(const char* expected) const {
  const T* value = std::get_if<T>(&value_);
  if (value != nullptr) return *value;
  throw StateError(fmt::format("expected {} in the state dict, found {}", expected, kind()));
}

bool StateValue::as_bool() const { return get<bool>("a bool"); }
std::int64_t StateValue::as_int() const { return get<std::int64_t>("an integer"); }
double StateValue::as_double() const { return get<double>("a double"); }
const std::string& StateValue::as_string() const { return get<std::string>("a string"); }
const Tensor& StateValue::as_tensor() const { return get<Tensor>("a tensor"); }
const TensorPart& StateValue::as_part() const { return get<TensorPart>("a part of a tensor"); }
const StateDict& StateValue::as_dict() const { return get<StateDict>("a dict"); }
const StateList& StateValue::as_list() const { return get<StateList>("a list"); }
Tensor& StateValue::as_tensor() { return const_cast<Tensor&>(std::as_const(*this).as_tensor()); }
StateDict& StateValue::as_dict() { return const_cast<StateDict&>(std::as_const(*this).as_dict()); }
StateList& StateValue::as_list() { return const_cast<StateList&>(std::as_const(*this).as_list()); }

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
