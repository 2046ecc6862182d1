#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "lockstep/core/flush_denormals.hpp"
#include "lockstep/optim/hyper_parameters.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

/// Numbers of one dtype that are updated in the same way: a parameter, or several that lie side by
/// side in memory.
template <class T>
struct UpdateRange {
  std::span<T> value;
  std::span<const T> gradient;
  std::span<const std::span<T>> slots;  ///< in the order of UpdateRule::slots()
  std::span<double> scalars;            ///< in the order of UpdateRule::scalars()
  bool fresh = false;                   ///< no slot existed before this step
  std::int64_t step = 1;                ///< number of this step, from 1
  double gradient_scale = 1;            ///< what the gradient is to be multiplied with
};

/// How an optimizer turns gradients into new values: hyper-parameters, and the formula of a step.
/// What is kept from step to step is no part of it: a number for each element in every slot, and a
/// number for each parameter in every scalar, both under their names in the optimizer's state.
class UpdateRule : public HyperParameters {
 public:
  static constexpr std::size_t max_slots = 8;
  static constexpr std::size_t max_scalars = 2;

  virtual std::unique_ptr<UpdateRule> clone() const = 0;

  /// The slots that a step needs with the present hyper-parameters; at most max_slots.
  virtual std::span<const std::string_view> slots() const = 0;
  /// What a slot holds before the first step.
  virtual double initial_value([[maybe_unused]] std::size_t slot) const { return 0; }
  /// The scalars of a parameter, at most max_scalars, which are 1 before the first step.
  virtual std::span<const std::string_view> scalars() const { return {}; }
  /// Whether the number of steps is part of a parameter's state, as "step".
  virtual bool counts_steps() const { return false; }
  /// Whether a range must be exactly one parameter, since norms of the whole go into its step.
  virtual bool whole_parameters() const { return false; }

  virtual void update(const UpdateRange<float>& range) const = 0;
  virtual void update(const UpdateRange<double>& range) const = 0;
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

  /// What to multiply the gradient with: the scale of the range, negative where the rule goes
  /// uphill.
  template <class T>
  T gradient_factor(const UpdateRange<T>& range) const {
    return static_cast<T>(options_.maximize ? -range.gradient_scale : range.gradient_scale);
  }

  Options options_;
};

/// Euclidean norm, of squares added up in double precision.
template <class T>
double norm(std::span<const T> numbers);

namespace detail {

template <class T, class F, class... Slot>
void for_each(std::size_t n, F f, T* __restrict value, const T* __restrict gradient,
              Slot* __restrict... slots) {
  for (std::size_t i = 0; i < n; ++i) f(value[i], gradient[i], slots[i]...);
}

}  // namespace detail

/// Calls f(value, gradient, slots...) with references to the value and the first `Slots` slots of
/// each element, in a loop that compilers vectorise. Denormal numbers count as zeros.
template <std::size_t Slots, class T, class F>
void for_each(const UpdateRange<T>& range, F f) {
  const FlushDenormals flush;
  [&]<std::size_t... Slot>(std::index_sequence<Slot...>) {
    detail::for_each(range.value.size(), f, range.value.data(), range.gradient.data(),
                     range.slots[Slot].data()...);
  }
  (std::make_index_sequence<Slots>());
}

}  // namespace lockstep::optim

#pragma GCC visibility pop
