#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "tensor/activations.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using kernels::Transpose;
using Slots = std::span<GradientSlot>;

namespace {

void check_matrix(const Tensor& x, const char* what) {
  if (x.shape().rank() != 2) {
    throw ShapeError(
        fmt::format("{}: expected a matrix, found shape {}", what, to_string(x.shape())));
  }
}

}  // namespace

Variable matmul(const Variable& a, const Variable& b) {
  check_matrix(a.value(), "matmul");
  check_matrix(b.value(), "matmul");
  const std::int64_t m = a.shape()[0], k = a.shape()[1], n = b.shape()[1];
  if (b.shape()[0] != k) {
    throw ShapeError(fmt::format("matmul: the inner extents of {} and {} differ",
                                 to_string(a.shape()), to_string(b.shape())));
  }
  Tensor result = Tensor::empty({m, n}, a.dtype());
  dispatch_kernel(a.dtype(), [&]<class T>() {
    kernels::gemm(Transpose::no, Transpose::no, m, n, k, a.value().data<T>(), b.value().data<T>(),
                  result.data<T>(), false);
  });
  return record(result, {a, b},
                [x = a.value(), y = b.value(), m, k, n](const Tensor& gradient, Slots slots) {
                  dispatch_kernel(gradient.dtype(), [&]<class T>() {
                    const T* g = gradient.data<T>();
                    if (slots[0].wanted()) {
                      slots[0].receive([&](Tensor& out, bool accumulate) {
                        kernels::gemm(Transpose::no, Transpose::yes, m, k, n, g, y.data<T>(),
                                      out.data<T>(), accumulate);
                      });
                    }
                    if (slots[1].wanted()) {
                      slots[1].receive([&](Tensor& out, bool accumulate) {
                        kernels::gemm(Transpose::yes, Transpose::no, k, n, m, x.data<T>(), g,
                                      out.data<T>(), accumulate);
                      });
                    }
                  });
                });
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias, Activation f) {
  check_matrix(weight.value(), "linear: weight");
  const std::int64_t out = weight.shape()[0], in = weight.shape()[1];
  const Shape& shape = x.shape();
  if (shape.rank() == 0 || shape[shape.rank() - 1] != in) {
    throw ShapeError(fmt::format("linear: expected an input of shape (..., {}), found {}", in,
                                 to_string(shape)));
  }
  if (bias.defined() && bias.shape() != Shape{out}) {
    throw ShapeError(fmt::format("linear: expected a bias of shape ({}), found {}", out,
                                 to_string(bias.shape())));
  }
  std::array<std::int64_t, Shape::max_rank> extents{};
  std::copy(shape.begin(), shape.end(), extents.begin());
  extents[shape.rank() - 1] = out;
  std::int64_t rows = 1;
  for (std::size_t axis = 0; axis + 1 < shape.rank(); ++axis) rows *= shape[axis];
  Tensor result = Tensor::empty(Shape(std::span(extents).first(shape.rank())), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    T* y = result.data<T>();
    kernels::gemm(Transpose::no, Transpose::yes, rows, out, in, x.value().data<T>(),
                  weight.value().data<T>(), y, false);
    if (bias.defined()) {
      kernels::activate_rows(f, rows, out, bias.value().data<T>(), y);
    } else {
      kernels::activate(f, result.size(), y, y);
    }
  });
  std::vector<Variable> inputs{x, weight};
  if (bias.defined()) inputs.push_back(bias);
  return record(
      result, std::move(inputs),
      [input = x.value(), w = weight.value(), y = f == Activation::none ? Tensor() : result, f,
       rows, in, out](const Tensor& gradient, Slots slots) {
        Tensor before = gradient;  // that of the activation
        dispatch_kernel(gradient.dtype(), [&]<class T>() {
          if (f != Activation::none) {
            before = Tensor::empty(gradient.shape(), gradient.dtype());
            kernels::activation_gradient(f, y.size(), y.data<T>(), gradient.data<T>(),
                                         before.data<T>(), false);
          }
          const T* g = std::as_const(before).data<T>();
          if (slots.size() > 2) {
            slots[2].receive([&](Tensor& target, bool accumulate) {
              kernels::sum_rows(rows, out, g, target.data<T>(), accumulate);
            });
          }
          slots[1].receive([&](Tensor& target, bool accumulate) {
            kernels::gemm(Transpose::yes, Transpose::no, out, in, rows, g, input.data<T>(),
                          target.data<T>(), accumulate);
          });
          slots[0].receive([&](Tensor& target, bool accumulate) {
            kernels::gemm(Transpose::no, Transpose::no, rows, in, out, g, w.data<T>(),
                          target.data<T>(), accumulate);
          });
        });
      });
}

}  // namespace lockstep
