#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "lockstep/state/state_dict.hpp"

namespace lockstep::optim {

/// A hyper-parameter of an update rule: its name, and where its value is.
struct Field {
  std::string_view name;
  std::variant<double*, std::int64_t*, bool*> value;
};

/// A run of numbers of one dtype that are updated in the same way: one parameter, or several that
/// lie side by side in memory.
template <class T>
struct UpdateRange {
  std::span<T> value;
  std::span<const T> gradient;
  std::span<const std::span<T>> slots;  ///< in the order of UpdateRule::slots()
  bool fresh = false;                   ///< the slots came into being for this step, as zeros
  std::int64_t step = 1;                ///< number of this step, from 1
};

/// How an optimizer turns gradients into new values: hyper-parameters, and the formula of a step.
/// What is kept from step to step for each number lives in named slots of the optimizer, never in
/// the rule.
class UpdateRule {
 public:
  static constexpr std::size_t max_slots = 8;

  virtual ~UpdateRule() = default;

  virtual std::unique_ptr<UpdateRule> clone() const = 0;
  virtual std::string_view name() const = 0;
  virtual std::vector<Field> fields() = 0;
  /// The slots that a step needs with the present hyper-parameters; at most max_slots.
  virtual std::span<const std::string_view> slots() const = 0;
  /// Whether the number of steps is part of a parameter's state, as "step".
  virtual bool counts_steps() const = 0;
  /// Throws OptionError, naming the field, where a hyper-parameter is outside its range.
  virtual void check() const = 0;
  virtual void update(const UpdateRange<float>& range) const = 0;
  virtual void update(const UpdateRange<double>& range) const = 0;

  /// The hyper-parameter of that name; NameError, which lists the names there are, for another.
  StateValue get(std::string_view field) const;
  /// Sets hyper-parameters by name, or throws and changes nothing: NameError, OptionError, or
  /// StateError where a value has another type. An integer is taken for a floating-point field.
  void set(const StateDict& fields);
  /// All hyper-parameters by name.
  StateDict options() const;

  /// For check(): throws OptionError "<rule>: expected <expectation>, found <value>" unless the
  /// value is valid, and finite.
  void require(bool valid, std::string_view expectation, double value) const;

 protected:
  UpdateRule() = default;
  UpdateRule(const UpdateRule&) = default;
  UpdateRule& operator=(const UpdateRule&) = default;
};

/// What every rule repeats, for a `Derived` with `template <class T> void step(const
/// UpdateRange<T>&) const` and an `Options` struct whose fields() lists its members.
template <class Derived, class Options>
class BasicRule : public UpdateRule {
 public:
  std::unique_ptr<UpdateRule> clone() const override {
    return std::make_unique<Derived>(static_cast<const Derived&>(*this));
  }
  std::vector<Field> fields() override { return options_.fields(); }
  void update(const UpdateRange<float>& range) const override {
    static_cast<const Derived*>(this)->template step<float>(range);
  }
  void update(const UpdateRange<double>& range) const override {
    static_cast<const Derived*>(this)->template step<double>(range);
  }

 protected:
  explicit BasicRule(const Options& options) : options_(options) {}

  Options options_;
};

}  // namespace lockstep::optim
