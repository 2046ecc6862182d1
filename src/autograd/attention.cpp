#include "lockstep/autograd/attention.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "lockstep/core/error.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using kernels::Transpose;
using Slots = std::span<GradientSlot>;

namespace {

struct Heads {
  std::int64_t samples, queries, keys, heads, width;
  bool causal;
  Tensor mask;

  std::int64_t features() const { return heads * width; }
  std::int64_t scores() const { return queries * keys; }  // of a head

  // The features of a head, out of `rows` of all, and back.
  template <class T>
  void take(const T* all, std::int64_t rows, std::int64_t head, T* own) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      std::copy_n(all + row * features() + head * width, width, own + row * width);
    }
  }
  template <class T>
  void add(const T* own, std::int64_t rows, std::int64_t head, T* all) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      kernels::add_scaled(width, T{1}, own + row * width, all + row * features() + head * width);
    }
  }

  bool sees(std::int64_t sample, std::int64_t query, std::int64_t key) const {
    if (causal && key > query) return false;
    return !mask.defined() || mask.data<std::uint8_t>()[sample * keys + key] == 0;
  }

  // The softmax of rows of scores, over the keys that a query sees; zeros for one that sees none.
  template <class T>
  void normalize(std::int64_t sample, T* rows) const {
    if (!causal && !mask.defined()) return kernels::softmax(queries, keys, rows, rows);
    for (std::int64_t query = 0; query < queries; ++query) {
      T* row = rows + query * keys;
      const auto hidden = [&](std::int64_t key) { return !sees(sample, query, key); };
      std::int64_t count = 0;
      for (std::int64_t key = 0; key < keys; ++key) count += hidden(key) ? 1 : 0;
      if (count == keys) {
        std::fill_n(row, keys, T{0});
        continue;
      }
      for (std::int64_t key = 0; key < keys && count > 0; ++key) {
        if (hidden(key)) row[key] = -std::numeric_limits<T>::infinity();
      }
      kernels::softmax(1, keys, row, row);
    }
  }
};

// Memory of one head.
template <class T>
struct HeadMemory {
  explicit HeadMemory(const Heads& of)
      : q(Tensor::empty({of.queries, of.width}, dtype_of<T>)),
        k(Tensor::empty({of.keys, of.width}, dtype_of<T>)),
        v(Tensor::empty({of.keys, of.width}, dtype_of<T>)),
        out(Tensor::empty({of.queries, of.width}, dtype_of<T>)) {}
  Tensor q, k, v, out;
};

// Calls f(sample, head, where queries, keys and probabilities of the sample begin) for each.
template <class F>
void for_each_head(const Heads& of, F f) {
  for (std::int64_t sample = 0; sample < of.samples; ++sample) {
    for (std::int64_t head = 0; head < of.heads; ++head) {
      f(sample, head, sample * of.queries * of.features(), sample * of.keys * of.features(),
        (sample * of.heads + head) * of.scores());
    }
  }
}

template <class T>
T scale_of(const Heads& of) {
  return static_cast<T>(1 / std::sqrt(static_cast<double>(of.width)));
}

template <class T>
void attend(const Heads& of, const T* queries, const T* keys, const T* values, T* probabilities,
            T* result) {
  HeadMemory<T> memory(of);
  T *q = memory.q.template data<T>(), *k = memory.k.template data<T>(),
    *v = memory.v.template data<T>(), *out = memory.out.template data<T>();
  for_each_head(of, [&](std::int64_t sample, std::int64_t head, std::int64_t at_query,
                        std::int64_t at_key, std::int64_t at_score) {
    T* p = probabilities + at_score;
    of.take(queries + at_query, of.queries, head, q);
    of.take(keys + at_key, of.keys, head, k);
    of.take(values + at_key, of.keys, head, v);
    kernels::scale(of.queries * of.width, scale_of<T>(of), q);
    kernels::gemm<T>(Transpose::no, Transpose::yes, of.queries, of.keys, of.width, q, k, p, false);
    of.normalize(sample, p);
    kernels::gemm<T>(Transpose::no, Transpose::no, of.queries, of.width, of.keys, p, v, out, false);
    of.add<T>(out, of.queries, head, result + at_query);
  });
}

// With P the probabilities, S the scores and s their scale: dV = Pᵀ · dO, dP = dO · Vᵀ, dS = the gradient of the
// softmax, dQ = s · dS · K, dK = s · dSᵀ · Q: what is wanted of these is added.
template <class T>
void attend_backward(const Heads& of, const T* queries, const T* keys, const T* values,
                     const T* probabilities, const T* gradient, T* dq, T* dk, T* dv) {
  HeadMemory<T> memory(of);
  T *own = memory.k.template data<T>(), *v = memory.v.template data<T>(),
    *q = memory.q.template data<T>(), *g = memory.out.template data<T>();
  Tensor scores = Tensor::empty({of.queries, of.keys}, dtype_of<T>);
  T* ds = scores.data<T>();
  for_each_head(of, [&](std::int64_t, std::int64_t head, std::int64_t at_query, std::int64_t at_key,
                        std::int64_t at_score) {
    const T* p = probabilities + at_score;
    of.take(gradient + at_query, of.queries, head, g);
    if (dv != nullptr) {
      kernels::gemm<T>(Transpose::yes, Transpose::no, of.keys, of.width, of.queries, p, g, own,
                       false);
      of.add<T>(own, of.keys, head, dv + at_key);
    }
    if (dq == nullptr && dk == nullptr) return;
    of.take(values + at_key, of.keys, head, v);
    kernels::gemm<T>(Transpose::no, Transpose::yes, of.queries, of.keys, of.width, g, v, ds, false);
    kernels::softmax_gradient<T>(of.queries, of.keys, p, ds, ds, false);
    kernels::scale(of.scores(), scale_of<T>(of), ds);
    if (dq != nullptr) {
      of.take(keys + at_key, of.keys, head, own);
      kernels::gemm<T>(Transpose::no, Transpose::no, of.queries, of.width, of.keys, ds, own, q,
                       false);
      of.add<T>(q, of.queries, head, dq + at_query);
    }
    if (dk != nullptr) {
      of.take(queries + at_query, of.queries, head, q);
      kernels::gemm<T>(Transpose::yes, Transpose::no, of.keys, of.width, of.queries, ds, q, own,
                       false);
      of.add<T>(own, of.keys, head, dk + at_key);
    }
  });
}

Heads heads_of(const Variable& queries, const Variable& keys, const Variable& values,
               const AttentionOptions& options) {
  const Shape &q = queries.shape(), &k = keys.shape();
  if (q.rank() != 3) {
    throw ShapeError(fmt::format(
        "attention: expected queries of shape (n, queries, features), found {}", to_string(q)));
  }
  if (k.rank() != 3 || k[0] != q[0] || k[2] != q[2]) {
    throw ShapeError(fmt::format("attention: expected keys of shape ({}, keys, {}), found {}", q[0],
                                 q[2], to_string(k)));
  }
  if (values.shape() != k) {
    throw ShapeError(fmt::format("attention: expected values of the shape of keys, {}, found {}",
                                 to_string(k), to_string(values.shape())));
  }
  if (options.heads < 1 || q[2] < 1 || q[2] % options.heads != 0) {
    throw OptionError(fmt::format("attention: expected heads that divide {} features, found {}",
                                  q[2], options.heads));
  }
  if (k[1] < 1) {
    throw ShapeError(
        fmt::format("attention: expected at least one key, found shape {}", to_string(k)));
  }
  if (options.causal && k[1] != q[1]) {
    throw OptionError(fmt::format(
        "attention: causal attention needs as many keys as queries, found {} and {}", k[1], q[1]));
  }
  const Tensor& mask = options.key_padding_mask;
  if (mask.defined() && mask.shape() != Shape{q[0], k[1]}) {
    throw ShapeError(fmt::format("attention: expected a mask of shape ({}, {}), found {}", q[0],
                                 k[1], to_string(mask.shape())));
  }
  if (mask.defined()) static_cast<void>(mask.data<std::uint8_t>());
  return {q[0], q[1], k[1], options.heads, q[2] / options.heads, options.causal, mask};
}

}  // namespace

Variable attention(const Variable& queries, const Variable& keys, const Variable& values,
                   const AttentionOptions& options) {
  const Heads of = heads_of(queries, keys, values, options);
  Tensor result = Tensor::zeros(queries.shape(), queries.dtype());
  Tensor probabilities =
      Tensor::empty({of.samples, of.heads, of.queries, of.keys}, queries.dtype());
  dispatch_kernel(queries.dtype(), [&]<class T>() {
    attend(of, queries.value().data<T>(), keys.value().data<T>(), values.value().data<T>(),
           probabilities.data<T>(), result.data<T>());
  });
  return record(
      result, {queries, keys, values},
      [of, q = queries.value(), k = keys.value(), v = values.value(),
       probabilities = std::as_const(probabilities)](const Tensor& gradient, Slots slots) {
        dispatch_kernel(gradient.dtype(), [&]<class T>() {
          // One variable may be several of the operands.
          const auto target = [](GradientSlot& slot) {
            T* found = nullptr;
            slot.receive([&](Tensor& tensor, bool accumulate) {
              if (!accumulate) tensor.fill(0);
              found = tensor.data<T>();
            });
            return found;
          };
          T *dq = target(slots[0]), *dk = target(slots[1]), *dv = target(slots[2]);
          attend_backward(of, q.data<T>(), k.data<T>(), v.data<T>(), probabilities.data<T>(),
                          gradient.data<T>(), dq, dk, dv);
        });
      });
}

}  // namespace lockstep
