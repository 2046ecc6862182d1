#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "lockstep/autograd/activations.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/nn/activations.hpp"
#include "lockstep/nn/convolution.hpp"
#include "lockstep/nn/module.hpp"
#include "lockstep/tensor/activation.hpp"

#pragma GCC visibility push(default)

namespace lockstep::nn {

struct LinearOptions {
  bool bias = true;
  DType dtype = DType::f32;
};

/// y = x · weightᵀ + bias, for x of shape (…, in). Starts as in PyTorch, from U(-1/√in, 1/√in),
/// seed 0; equal layers start equal until Module::initialize gives each the numbers of its name.
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, const LinearOptions& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;
  /// f(y), as the activation f after this layer would give it.
  Variable forward(const Variable& x, Activation f);

  Parameter weight;  ///< (out, in)
  Parameter bias;    ///< (out); undefined without a bias

 protected:
  void reset_parameters(RandomKey key) override;
};

/// In training, zeroes elements with probability p and scales the others by 1 / (1 - p).
/// Hinton et al., arXiv:1207.0580. OptionError unless 0 ≤ p < 1.
class Dropout : public Module {
 public:
  explicit Dropout(double p = 0.5);

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

 private:
  double p_;
  RandomState random_;
};

/// (n, a, b, …) becomes (n, a·b·…).
class Flatten : public Module {
 public:
  Variable forward(const Variable& x) override;
};

/// (n, …) becomes (n, extents of a sample). ShapeError for samples of another number of elements.
class Unflatten : public Module {
 public:
  explicit Unflatten(Shape sample) : sample_(std::move(sample)) {}

  Variable forward(const Variable& x) override;

 private:
  Shape sample_;
};

/// The rows of a weight of (count, features) that indices name, which are i64. Starts from N(0, 1), as in PyTorch.
class Embedding : public Module {
 public:
  Embedding(std::int64_t count, std::int64_t features, DType dtype = DType::f32);

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& indices) override;

  Parameter weight;

 protected:
  void reset_parameters(RandomKey key) override;
};

/// body(x) + shortcut(x), or body(x) + x without a shortcut: He, Zhang, Ren, Sun, arXiv:1512.03385. Copies share the
/// modules, which are named "body" and "shortcut". OptionError where there is no body.
class Residual : public Module {
 public:
  explicit Residual(std::shared_ptr<Module> body, std::shared_ptr<Module> shortcut = nullptr);
  template <class M>
  requires(std::is_base_of_v<Module, std::decay_t<M>> &&
           !std::is_same_v<Residual, std::decay_t<M>>) explicit Residual(M&& body)
      : Residual(std::make_shared<std::decay_t<M>>(std::forward<M>(body))) {}

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

 private:
  std::shared_ptr<Module> body_, shortcut_;
};

/// Modules one after another, named "0", "1", … Copies share them. A Linear or a convolution, and the ReLU,
/// Tanh or Sigmoid after it, are one operation, of the same bits.
class Sequential : public Module {
 public:
  template <class... Modules>
  requires(sizeof...(Modules) > 0 && (std::is_base_of_v<Module, std::decay_t<Modules>> && ...) &&
           !(sizeof...(Modules) == 1 && (std::is_same_v<Sequential, std::decay_t<Modules>> &&
                                         ...))) explicit Sequential(Modules&&... modules) {
    (append(std::forward<Modules>(modules)), ...);
  }
  Sequential() = default;

  template <class M>
  requires std::is_base_of_v<Module, std::decay_t<M>>
  void append(M&& module) {
    modules_.push_back(std::make_shared<std::decay_t<M>>(std::forward<M>(module)));
  }
  /// OptionError for nullptr.
  void append(std::shared_ptr<Module> module);

  std::size_t size() const noexcept { return modules_.size(); }
  Module& operator[](std::size_t index) { return *modules_.at(index); }
  /// The module at an index as what it is: at<Linear>(0).weight.
  template <class M>
  M& at(std::size_t index) {
    return dynamic_cast<M&>(*modules_.at(index));
  }

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

 private:
  std::vector<std::shared_ptr<Module>> modules_;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
