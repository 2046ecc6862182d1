#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/tensor/memory_pool.hpp"
#include "lockstep/tensor/tensor.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

class StateValue;

/// Numbers [begin, begin + numbers.size()) of a tensor, in row-major order, of which other ranks hold
/// the rest. checkpoint::save puts it together from all ranks.
struct TensorPart {
  Shape shape;  ///< of the whole tensor
  std::int64_t begin = 0;
  Tensor numbers;  ///< one-dimensional, maybe with none; its dtype is that of the whole
};

/// A tree of named state: tensors or parts of them, scalars, strings, lists and nested dicts, in the order of their
/// keys. Copies of a dict share the memory of its tensors; clone() copies that too.
class StateDict {
 public:
  using Map = std::map<std::string, StateValue, std::less<>,
                       memory_pool::Allocator<std::pair<const std::string, StateValue>>>;

  StateDict() = default;
  StateDict(std::initializer_list<std::pair<std::string, StateValue>> entries);

  bool empty() const noexcept { return entries_.empty(); }
  std::size_t size() const noexcept { return entries_.size(); }
  bool contains(std::string_view key) const;

  /// The entry under a key; made, as an empty dict, where there is none.
  StateValue& operator[](std::string_view key);
  /// Adds an entry; where there is one under that key, changes nothing and returns false. Quickest in the
  /// order of keys.
  bool insert(std::string key, StateValue value);
  /// The entry under a key; NameError, which lists some of the keys there are, where there is none.
  const StateValue& at(std::string_view key) const;

  /// Removes the entry under a key, if there is one.
  void erase(std::string_view key);

  Map::const_iterator begin() const noexcept { return entries_.begin(); }
  Map::const_iterator end() const noexcept { return entries_.end(); }
  Map::iterator begin() noexcept { return entries_.begin(); }
  Map::iterator end() noexcept { return entries_.end(); }

  StateDict clone() const;

 private:
  Map entries_;
};

using StateList = std::vector<StateValue>;

/// One entry of a StateDict. The accessors throw StateError where it is something else.
class StateValue {
 public:
  StateValue() : value_(StateDict()) {}
  StateValue(bool value) : value_(value) {}                           // NOLINT: values convert
  StateValue(double value) : value_(value) {}                         // NOLINT
  StateValue(std::string value) : value_(std::move(value)) {}         // NOLINT
  StateValue(std::string_view value) : value_(std::string(value)) {}  // NOLINT
  StateValue(const char* value) : value_(std::string(value)) {}       // NOLINT
  StateValue(Tensor value) : value_(std::move(value)) {}              // NOLINT
  StateValue(TensorPart value) : value_(std::move(value)) {}          // NOLINT
  StateValue(StateDict value) : value_(std::move(value)) {}           // NOLINT
  StateValue(StateList value) : value_(std::move(value)) {}           // NOLINT
  template <class Integer>
  requires std::is_integral_v<Integer> StateValue(Integer value)
      : value_(static_cast<std::int64_t>(value)) {}  // NOLINT

  bool as_bool() const { return get<bool>("a bool"); }
  std::int64_t as_int() const { return get<std::int64_t>("an integer"); }
  double as_double() const { return get<double>("a double"); }
  const std::string& as_string() const { return get<std::string>("a string"); }
  const Tensor& as_tensor() const { return get<Tensor>("a tensor"); }
  Tensor& as_tensor() { return const_cast<Tensor&>(std::as_const(*this).as_tensor()); }
  const TensorPart& as_part() const { return get<TensorPart>("a part of a tensor"); }
  const StateDict& as_dict() const { return get<StateDict>("a dict"); }
  StateDict& as_dict() { return const_cast<StateDict&>(std::as_const(*this).as_dict()); }
  const StateList& as_list() const { return get<StateList>("a list"); }
  StateList& as_list() { return const_cast<StateList&>(std::as_const(*this).as_list()); }

  using Variant = std::variant<bool, std::int64_t, double, std::string, Tensor, StateDict,
                               StateList, TensorPart>;
  const Variant& variant() const noexcept { return value_; }
  /// "a bool", "an integer", "a double", "a string", "a tensor", "a dict", "a list" or "a part of a
  /// tensor".
  std::string_view kind() const noexcept;

  StateValue clone() const;

 private:
  template <class T>
  const T& get(const char* expected) const {
    const T* value = std::get_if<T>(&value_);
    if (value == nullptr) throw_wrong_kind(expected);
    return *value;
  }
  [[noreturn]] void throw_wrong_kind(std::string_view expected) const;

  Variant value_;
};

/// Equal structure, keys and scalars, and tensors equal to the bit.
bool bit_equal(const StateValue& a, const StateValue& b);
bool bit_equal(const StateDict& a, const StateDict& b);

}  // namespace lockstep

#pragma GCC visibility pop
