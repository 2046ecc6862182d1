#pragma once

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "lockstep/state/state_dict.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

/// Which numbers a hyper-parameter may be; NaN and infinity never are.
enum class Domain { any, non_negative, positive, fraction };  // fraction: 0 ≤ x < 1

/// A hyper-parameter: its name, where its value is, and which values are valid.
struct Field {
  std::string_view name;
  std::variant<double*, std::int64_t*, bool*> value;
  Domain domain = Domain::any;
};

/// Numbers and switches that can be read and set by name. One of them is "lr".
class HyperParameters {
 public:
  virtual ~HyperParameters() = default;

  /// Whose hyper-parameters these are: "Adam".
  virtual std::string_view name() const = 0;
  virtual std::vector<Field> fields() = 0;
  /// Throws OptionError, naming the field, where one is outside its domain. What depends on several
  /// fields is added by overriding it.
  virtual void check() const;

  /// The hyper-parameter of that name; NameError, which lists the names there are, for another.
  StateValue get(std::string_view field) const;
  /// Sets hyper-parameters by name, or throws and changes nothing: NameError, OptionError, or
  /// StateError where a value has another type. An integer is taken for a floating-point field.
  void set(const StateDict& values);
  /// All hyper-parameters by name.
  StateDict options() const;

 protected:
  HyperParameters() = default;
  HyperParameters(const HyperParameters&) = default;
  HyperParameters& operator=(const HyperParameters&) = default;

  /// Throws OptionError "<name>: expected <expectation>, found <value>" unless `valid`.
  void require(bool valid, std::string_view expectation, double value) const;
};

}  // namespace lockstep::optim

#pragma GCC visibility pop
