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

  // Not inline, like all that would make compilers go through the map and its values.
  StateDict();
  StateDict(std::initializer_list<std::pair<std::string, StateValue>> entries);
  StateDict(const StateDict& other);
  StateDict(StateDict&& other) noexcept;
  StateDict& operator=(const StateDict& other);
  StateDict& operator=(StateDict&& other) noexcept;
  ~StateDict();

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
  /// An empty dict.
  StateValue();
  StateValue(bool value);              // NOLINT: values convert
  StateValue(std::int64_t value);      // NOLINT
  StateValue(double value);            // NOLINT
  StateValue(std::string value);       // NOLINT
  StateValue(std::string_view value);  // NOLINT
  StateValue(const char* value);       // NOLINT
  StateValue(Tensor value);            // NOLINT
  StateValue(TensorPart value);        // NOLINT
  StateValue(StateDict value);         // NOLINT
  StateValue(StateList value);         // NOLINT
  template <class Integer>
  requires std::is_integral_v<Integer> StateValue(Integer value)  // NOLINT
      : StateValue(static_cast<std::int64_t>(value)) {}
  StateValue(const StateValue& other);
  StateValue(StateValue&& other) noexcept;
  StateValue& operator=(const StateValue& other);
  StateValue& operator=(StateValue&& other) noexcept;
  ~StateValue();

  bool as_bool() const;
  std::int64_t as_int() const;
  double as_double() const;
  const std::string& as_string() const;
  const Tensor& as_tensor() const;
  Tensor& as_tensor();
  const TensorPart& as_part() const;
  const StateDict& as_dict() const;
  StateDict& as_dict();
  const StateList& as_list() const;
  StateList& as_list();

  using Variant = std::variant<bool, std::int64_t, double, std::string, Tensor, StateDict,
                               StateList, TensorPart>;
  const Variant& variant() const noexcept { return value_; }
  /// "a bool", "an integer", "a double", "a string", "a tensor", "a dict", "a list" or "a part of a
  /// tensor".
  std::string_view kind() const noexcept;

  StateValue clone() const;

 private:
  template <class T>
  const T& get(const char* expected) const;

  Variant value_;
};

/// Equal structure, keys and scalars, and tensors equal to the bit.
bool bit_equal(const StateValue& a, const StateValue& b);
bool bit_equal(const StateDict& a, const StateDict& b);

}  // namespace lockstep

#pragma GCC visibility pop
