#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

class Parameter;

namespace autograd {

struct GradientFlags {
  bool has_gradient = false;
  bool requires_grad = false;
  /// The gradient is the one that the owner has reduced, which is read where it lies.
  bool reduced = false;
  /// The owner has yet to reduce what backwards have added, or is about to.
  bool unreduced = false;
};

/// The flags of a gradient owner's parameters, by index: side by side, so that an optimizer sees at
/// a glance whether all of many neighbours take part in a step.
struct GradientTable {
  std::vector<GradientFlags> flags;
  std::uint64_t layout_epoch = 0;  ///< changes when a parameter in it is bound elsewhere
  std::size_t final_hooks = 0;     ///< of all its parameters
  std::size_t unreduced = 0;       ///< how many of the flags say so
};

/// Takes over where the gradients of parameters are stored and when they are final: implemented by
/// what reduces them over ranks.
class GradientOwner {
 public:
  /// Of so many parameters; those with a higher index keep their flags by themselves.
  explicit GradientOwner(std::size_t parameters = 0) : table_(std::make_shared<GradientTable>()) {
    table_->flags.resize(parameters);
  }
  virtual ~GradientOwner() = default;
  const std::shared_ptr<GradientTable>& table() const noexcept { return table_; }

  /// A backward is about to write the first contribution to a parameter's gradient. Returns whether
  /// it adds to what is in the storage, or replaces it.
  virtual bool open(std::size_t index) = 0;
  /// The gradient of the parameter has got all contributions of this backward.
  virtual void complete(std::size_t index) = 0;
  /// A backward that can reach a parameter of this owner is at its end, whether or not it opened
  /// any.
  virtual void finish() = 0;
  /// Such a backward ended by an exception, that of another owner's finish() included. (One that throws
  /// because its graph was used up has not begun.)
  virtual void abandon() noexcept = 0;
  /// The sum of the squares of a gradient that it has left as reduced, in double precision, if it has
  /// measured that: the same to the bit as if it were computed from the numbers. Who asks once will
  /// ask again, so an owner may begin to measure then.
  virtual std::optional<double> sum_squares(std::size_t /*index*/) { return std::nullopt; }
  /// Where the gradients that it has reduced last are not all finite: the lowest rank that came with one that was not, if
  /// it has looked for that.
  virtual std::optional<int> non_finite_rank() const { return std::nullopt; }

 private:
  std::shared_ptr<GradientTable> table_;
};

}  // namespace autograd

/// A leaf that is trained: a handle to a value and a gradient of one shape and dtype, f32 or f64.
/// Copies refer to the same parameter.
class Parameter : public Variable {
 public:
  using Hook = std::function<void(const Parameter&)>;

  Parameter() = default;
  explicit Parameter(Tensor value);
  /// A parameter that has a name of its own, for use without a Module.
  Parameter(std::string name, Tensor value);

  /// The name given at construction; empty for parameters that a Module names.
  const std::string& name() const;

  Tensor& mutable_value();
  /// The gradient, to write, in memory of this rank alone: a reduced one is copied there. Makes it
  /// exist, as zeros, where there was none.
  Tensor& mutable_grad();
  /// Forgets the gradient, or sets it to zero where it exists and set_to_none is false. StateError
  /// where the gradient owner has not reduced it yet: other ranks would still count theirs.
  void zero_grad(bool set_to_none = true);
  /// Forgets the gradient and frees its memory, which zero_grad() keeps for the next backward. Memory
  /// that belongs to a gradient owner stays.
  void release_grad();
  void set_requires_grad(bool requires_grad);

  /// Calls the hook whenever a backward has completed this parameter's local gradient (before any
  /// reduction over ranks). Returns a number for remove_hook.
  std::int64_t register_hook(Hook hook);
  /// Calls the hook whenever this parameter's gradient is final: after the reduction over ranks
  /// where there is one, and else as above. It may change the value and release the gradient.
  std::int64_t register_final_hook(Hook hook);
  void remove_hook(std::int64_t handle);
  /// Calls the final hooks: done by the gradient owner.
  void run_final_hooks() const;

  /// Moves the value and the storage of the gradient into other memory; the value is copied there,
  /// and the gradient too where it exists. From then on `owner` is told about this parameter's
  /// gradients by `index`; nullptr ends that. `reduced` is where the owner leaves the gradient when it
  /// has set GradientFlags::reduced. Shapes and dtypes must be those of the parameter. An undefined storage is
  /// memory of its own.
  void rebind(Tensor value, Tensor gradient, autograd::GradientOwner* owner, std::size_t index,
              const Tensor& reduced = {});
  /// Moves the value alone; it is copied there, unless it is there already.
  void rebind_value(Tensor value, bool copies = true);
  /// Who owns the gradient's storage; nullptr for the parameter itself.
  autograd::GradientOwner* gradient_owner() const;
  /// Declares that the storage holds a gradient (or none), without touching the numbers.
  void set_has_grad(bool has_grad);
  /// Counts the calls of rebind: what depends on addresses is rebuilt when it changes.
  std::uint64_t layout_epoch() const;
};

/// A parameter and the name it goes by in state dicts and messages.
struct NamedParameter {
  NamedParameter(std::string name, Parameter parameter);
  /// Uses the parameter's own name; NameError where it has none.
  NamedParameter(Parameter parameter);  // NOLINT: a named parameter is a NamedParameter

  std::string name;
  Parameter parameter;
};

}  // namespace lockstep

#pragma GCC visibility pop
