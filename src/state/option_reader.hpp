#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/state/state_dict.hpp"

namespace lockstep {

/// Options by name, as a C or Fortran program gives them, or a file, to which a number is a number:
/// 3.0 is an integer where one is wanted, and 1 a truth value. Each is asked for by name, and
/// finish() knows which nobody has asked for. OptionErrors name the owner and the option.
class OptionReader {
 public:
  /// A list stands for an option that is given several times.
  OptionReader(std::string owner, StateDict values)
      : owner_(std::move(owner)), values_(std::move(values)) {}

  bool has(std::string_view name) {
    asked_for_.emplace(name);
    return values_.contains(name);
  }
  /// Each of these takes one that is given once. Without `otherwise` it must be given.
  double number(std::string_view name, std::optional<double> otherwise = std::nullopt);
  std::int64_t integer(std::string_view name, std::optional<std::int64_t> otherwise = std::nullopt);
  bool flag(std::string_view name, std::optional<bool> otherwise = std::nullopt);
  std::string text(std::string_view name, std::optional<std::string> otherwise = std::nullopt);
  /// All that are given of this name, in order; maybe none.
  std::vector<double> numbers(std::string_view name);
  std::vector<std::int64_t> integers(std::string_view name);
  std::vector<std::string> texts(std::string_view name);

  /// A text that stands for one of several values.
  template <class T>
  T choice(std::string_view name, std::initializer_list<std::pair<std::string_view, T>> choices,
           T otherwise) {
    if (!has(name)) return otherwise;
    const std::string found = text(name);
    std::string known;
    for (const auto& [word, value] : choices) {
      if (word == found) return value;
      known += (known.empty() ? "" : ", ") + std::string(word);
    }
    refuse(name, "one of " + known, found);
  }

  /// Throws an OptionError where there are options that were not asked for.
  void finish() const;

 private:
  const StateValue* find(std::string_view name, bool required);
  std::vector<const StateValue*> find_all(std::string_view name);
  double number_of(std::string_view name, const StateValue& value) const;
  std::int64_t integer_of(std::string_view name, const StateValue& value) const;
  std::string text_of(std::string_view name, const StateValue& value) const;
  [[noreturn]] void refuse(std::string_view name, std::string_view expected,
                           std::string_view found) const;

  std::string owner_;
  StateDict values_;
  std::set<std::string, std::less<>> asked_for_;
};

}  // namespace lockstep
