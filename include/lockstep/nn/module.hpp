#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/state/stateful.hpp"
#include "lockstep/tensor/random.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

class Module;

/// The random numbers of a module such as Dropout: those of call number `calls` on stream `stream`,
/// of a seed. Ranks differ in the stream alone, which DataParallel sets; the rest is saved with the
/// module.
struct RandomState {
  static constexpr std::uint64_t step_calls = std::uint64_t{1} << 32;

  std::uint64_t seed = 0;
  std::uint64_t calls = 0;
  std::uint64_t stream = 0;

  /// The key for the next call.
  RandomKey next() noexcept { return RandomKey(seed).fold(stream).fold(calls++); }
};

/// Is told each member of a module with its name, in the order of registration.
class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void operator()(std::string_view name, Parameter& parameter) = 0;
  /// A buffer: state that is saved, but not trained.
  virtual void operator()(std::string_view name, Tensor& buffer) = 0;
  virtual void operator()(std::string_view name, RandomState& random) = 0;
  virtual void operator()(std::string_view name, Module& child) = 0;
};

/// Base of all layers and models. A module derives from it, lists its members in visit(), and
/// computes in forward():
///
///     struct Model : nn::Module {
///       nn::Linear hidden{8, 16}, out{16, 4};
///       void visit(nn::Visitor& visitor) override {
///         visitor("hidden", hidden);
///         visitor("out", out);
///       }
///       Variable forward(const Variable& x) override { return out(relu(hidden(x))); }
///     };
///
/// Names are the paths to the members, joined by dots: "hidden.weight".
class Module : public Stateful {
 public:
  virtual void visit(Visitor& visitor);
  virtual Variable forward(const Variable& x) = 0;
  Variable operator()(const Variable& x) { return forward(x); }

  /// Parameters in order of registration. One that is reached under several names appears under the
  /// first of them.
  std::vector<NamedParameter> named_parameters() const;
  std::vector<Parameter> parameters() const;
  std::vector<std::pair<std::string, Tensor>> named_buffers() const;
  /// This module, named "", and those below it in the order of visit(). One that is reached under
  /// several names appears under the first of them.
  std::vector<std::pair<std::string, Module*>> named_modules();

  /// Draws all parameters anew. The values of a parameter depend on the seed and on its name alone.
  void initialize(std::uint64_t seed);

  /// Switches this module and those below it between training and evaluation.
  void train(bool training = true);
  void eval() { train(false); }
  bool training() const noexcept { return training_; }

  void zero_grad(bool set_to_none = true);
  void set_requires_grad(bool requires_grad);

  /// The stream of random numbers of this module and those below it; see RandomState.
  void set_random_stream(std::uint64_t stream);
  /// Takes that stream from the beginning of the step on, where end_random_step() has left the count
  /// of calls; what one stream is used for has no effect on another.
  void begin_random_step(std::uint64_t stream);
  /// Moves the count of calls of this module and those below it on to the next multiple of
  /// RandomState::step_calls. So replicas agree on it though one of them has called its modules
  /// less often in this step, having no samples.
  void end_random_step();

  StateDict state_dict() const override;
  void check_restore(const StateDict& source) const override;
  void restore(const StateDict& source) override;

 protected:
  Module() = default;
  Module(const Module&) = default;
  Module(Module&&) = default;
  Module& operator=(const Module&) = default;
  Module& operator=(Module&&) = default;

  /// Draws the parameters of this module itself, not of its children; `key` belongs to its name.
  virtual void reset_parameters(RandomKey key);

 private:
  bool training_ = true;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
