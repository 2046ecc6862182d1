#include "lockstep/autograd/recurrent.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "lockstep/autograd/structure.hpp"
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

struct Sizes {
  std::int64_t samples, steps, in, hidden, gates;
  bool reverse;

  std::int64_t rows() const { return steps * samples; }
  std::int64_t wide() const { return gates * hidden; }
  std::int64_t state() const { return samples * hidden; }
  /// Where the k-th step to be made is in a sequence.
  std::int64_t at(std::int64_t k) const { return reverse ? steps - 1 - k : k; }

  // Calls f(row of all samples step by step, row of all steps sample by sample) for each row.
  template <class F>
  void for_each_row(F f) const {
    for (std::int64_t k = 0; k < steps; ++k) {
      for (std::int64_t sample = 0; sample < samples; ++sample) {
        f(k * samples + sample, sample * steps + at(k));
      }
    }
  }
};

// Numbers of a step of an LSTM are `features` = 2: h_t and c_t. Those of a GRU are h_t alone.
template <class T>
void lstm_step(const Sizes& s, T* gates, const T* cell, T* next_hidden, T* next_cell) {
  const std::int64_t h = s.hidden;
  for (std::int64_t sample = 0; sample < s.samples; ++sample) {
    kernels::activate(Activation::sigmoid, 2 * h, gates, gates);
    kernels::activate(Activation::tanh, h, gates + 2 * h, gates + 2 * h);
    kernels::activate(Activation::sigmoid, h, gates + 3 * h, gates + 3 * h);
    const T *i = gates, *f = gates + h, *g = gates + 2 * h, *o = gates + 3 * h;
    for (std::int64_t j = 0; j < h; ++j) next_cell[j] = f[j] * cell[j] + i[j] * g[j];
    kernels::activate(Activation::tanh, h, next_cell, next_hidden);
    for (std::int64_t j = 0; j < h; ++j) next_hidden[j] *= o[j];
    gates += s.wide(), cell += h, next_hidden += h, next_cell += h;
  }
}

// From the gradients of h_t and c_t those before the gates, and in place that of c_{t-1}.
template <class T>
void lstm_step_backward(const Sizes& s, const T* gates, const T* cell, const T* next_cell,
                        const T* dh, T* dc, T* dgates) {
  const std::int64_t h = s.hidden;
  std::vector<T> squashed(static_cast<std::size_t>(h));
  for (std::int64_t sample = 0; sample < s.samples; ++sample) {
    kernels::activate(Activation::tanh, h, next_cell, squashed.data());
    const T *i = gates, *f = gates + h, *g = gates + 2 * h, *o = gates + 3 * h;
    T *di = dgates, *df = dgates + h, *dg = dgates + 2 * h, *d_o = dgates + 3 * h;
    for (std::int64_t j = 0; j < h; ++j) {
      const T tanh = squashed[static_cast<std::size_t>(j)];
      const T of_cell = dc[j] + dh[j] * o[j] * (1 - tanh * tanh);
      di[j] = of_cell * g[j] * i[j] * (1 - i[j]);
      df[j] = of_cell * cell[j] * f[j] * (1 - f[j]);
      dg[j] = of_cell * i[j] * (1 - g[j] * g[j]);
      d_o[j] = dh[j] * tanh * o[j] * (1 - o[j]);
      dc[j] = of_cell * f[j];
    }
    gates += s.wide(), dgates += s.wide(), cell += h, next_cell += h, dh += h, dc += h;
  }
}

// `from_input` and `from_hidden` are what the gates get of both; the first becomes the gates.
template <class T>
void gru_step(const Sizes& s, T* from_input, const T* from_hidden, const T* hidden, T* next) {
  const std::int64_t h = s.hidden;
  for (std::int64_t sample = 0; sample < s.samples; ++sample) {
    for (std::int64_t j = 0; j < 2 * h; ++j) from_input[j] += from_hidden[j];
    kernels::activate(Activation::sigmoid, 2 * h, from_input, from_input);
    const T *r = from_input, *z = from_input + h;
    T* n = from_input + 2 * h;
    for (std::int64_t j = 0; j < h; ++j) n[j] += r[j] * from_hidden[2 * h + j];
    kernels::activate(Activation::tanh, h, n, n);
    for (std::int64_t j = 0; j < h; ++j) next[j] = (1 - z[j]) * n[j] + z[j] * hidden[j];
    from_input += s.wide(), from_hidden += s.wide(), hidden += h, next += h;
  }
}

// From the gradient of h_t those of what the gates got of both, and in place the part of that of h_{t-1} that
// does not come through the gates.
template <class T>
void gru_step_backward(const Sizes& s, const T* gates, const T* from_hidden, const T* hidden, T* dh,
                       T* of_input, T* of_hidden) {
  const std::int64_t h = s.hidden;
  for (std::int64_t sample = 0; sample < s.samples; ++sample) {
    const T *r = gates, *z = gates + h, *n = gates + 2 * h, *m = from_hidden + 2 * h;
    for (std::int64_t j = 0; j < h; ++j) {
      const T dn = dh[j] * (1 - z[j]) * (1 - n[j] * n[j]);
      of_input[j] = of_hidden[j] = dn * m[j] * r[j] * (1 - r[j]);
      of_input[h + j] = of_hidden[h + j] = dh[j] * (hidden[j] - n[j]) * z[j] * (1 - z[j]);
      of_input[2 * h + j] = dn;
      of_hidden[2 * h + j] = dn * r[j];
      dh[j] *= z[j];
    }
    gates += s.wide(), from_hidden += s.wide(), hidden += h, dh += h;
    of_input += s.wide(), of_hidden += s.wide();
  }
}

// What a forward keeps for its backward, step by step in the order in which they are made. States begin with that
// before the first step.
struct Recorded {
  Tensor x, gates, from_hidden, hidden, cell;
};

template <class T>
void gather(const Sizes& s, std::int64_t length, const T* sequences, T* rows) {
  s.for_each_row([=](std::int64_t row, std::int64_t of) {
    std::copy_n(sequences + of * length, length, rows + row * length);
  });
}

// y = x · weightᵀ + bias
template <class T>
void project(std::int64_t rows, std::int64_t in, std::int64_t out, const T* x,
             const Variable& weight, const Variable& bias, T* y) {
  kernels::gemm(Transpose::no, Transpose::yes, rows, out, in, x, weight.value().data<T>(), y,
                false);
  if (bias.defined()) {
    kernels::activate_rows(Activation::none, rows, out, bias.value().data<T>(), y);
  }
}

template <class T>
void begin_with(const Variable& state, std::int64_t size, T* first) {
  if (state.defined()) {
    std::copy_n(state.value().data<T>(), size, first);
  } else {
    std::fill_n(first, size, T{0});
  }
}

template <class T>
Recorded run(const Sizes& s, const Variable& x, const RecurrentWeights& weights,
             const Variable& hidden, const Variable& cell) {
  const DType dtype = x.dtype();
  const bool is_lstm = s.gates == 4;
  Recorded of{.x = Tensor::empty({s.rows(), s.in}, dtype),
              .gates = Tensor::empty({s.rows(), s.wide()}, dtype),
              .from_hidden = Tensor::empty({is_lstm ? s.samples : s.rows(), s.wide()}, dtype),
              .hidden = Tensor::empty({s.steps + 1, s.samples, s.hidden}, dtype),
              .cell = Tensor::empty({is_lstm ? s.steps + 1 : 0, s.samples, s.hidden}, dtype)};
  gather(s, s.in, x.value().data<T>(), of.x.data<T>());
  T* gates = of.gates.data<T>();
  T* from_hidden = of.from_hidden.data<T>();
  T* h = of.hidden.data<T>();
  T* c = of.cell.data<T>();
  project<T>(s.rows(), s.in, s.wide(), of.x.data<T>(), weights.input, weights.input_bias, gates);
  begin_with(hidden, s.state(), h);
  if (is_lstm) begin_with(cell, s.state(), c);
  for (std::int64_t k = 0; k < s.steps; ++k, h += s.state(), gates += s.samples * s.wide()) {
    project<T>(s.samples, s.hidden, s.wide(), h, weights.hidden, weights.hidden_bias, from_hidden);
    if (is_lstm) {
      kernels::add_scaled(s.samples * s.wide(), T{1}, from_hidden, gates);
      lstm_step(s, gates, c, h + s.state(), c + s.state());
      c += s.state();
    } else {
      gru_step(s, gates, from_hidden, h, h + s.state());
      from_hidden += s.samples * s.wide();
    }
  }
  return of;
}

// Gradients before the gates, of what they got of the input and of the hidden state, and of the first states.
struct Gradients {
  Tensor of_input, of_hidden, hidden, cell;
};

// `gradient` is that of the states, (n, steps, features), sequence by sequence.
template <class T>
Gradients run_backward(const Sizes& s, const Recorded& of, const Tensor& weight,
                       const Tensor& gradient) {
  const DType dtype = gradient.dtype();
  const bool is_lstm = s.gates == 4;
  const std::int64_t features = is_lstm ? 2 * s.hidden : s.hidden;
  Tensor rows = Tensor::empty({s.rows(), features}, dtype);
  gather(s, features, gradient.data<T>(), rows.data<T>());
  Gradients to{.of_input = Tensor::empty({s.rows(), s.wide()}, dtype),
               .of_hidden = Tensor::empty({is_lstm ? 0 : s.rows(), s.wide()}, dtype),
               .hidden = Tensor::zeros({s.samples, s.hidden}, dtype),
               .cell = Tensor::zeros({s.samples, s.hidden}, dtype)};
  T *dh = to.hidden.data<T>(), *dc = to.cell.data<T>();
  for (std::int64_t k = s.steps; k-- > 0;) {
    const T* row = std::as_const(rows).data<T>() + k * s.samples * features;
    for (std::int64_t sample = 0; sample < s.samples; ++sample, row += features) {
      kernels::add_scaled(s.hidden, T{1}, row, dh + sample * s.hidden);
      if (is_lstm) kernels::add_scaled(s.hidden, T{1}, row + s.hidden, dc + sample * s.hidden);
    }
    const std::int64_t block = k * s.samples * s.wide();
    const T* gates = of.gates.data<T>() + block;
    const T* hidden = of.hidden.data<T>() + k * s.state();
    T* of_input = to.of_input.data<T>() + block;
    if (is_lstm) {
      const T* cell = of.cell.data<T>() + k * s.state();
      lstm_step_backward(s, gates, cell, cell + s.state(), dh, dc, of_input);
      kernels::gemm(Transpose::no, Transpose::no, s.samples, s.hidden, s.wide(), of_input,
                    weight.data<T>(), dh, false);
    } else {
      T* of_hidden = to.of_hidden.data<T>() + block;
      gru_step_backward(s, gates, of.from_hidden.data<T>() + block, hidden, dh, of_input,
                        of_hidden);
      kernels::gemm(Transpose::no, Transpose::no, s.samples, s.hidden, s.wide(), of_hidden,
                    weight.data<T>(), dh, true);
    }
  }
  if (is_lstm) to.of_hidden = to.of_input;
  return to;
}

void check_shape(const char* what, const char* name, const Variable& x, const Shape& expected) {
  if (x.shape() == expected) return;
  throw ShapeError(fmt::format("{}: expected {} of shape {}, found {}", what, name,
                               to_string(expected), to_string(x.shape())));
}

Sizes sizes_of(const char* what, const Variable& x, const RecurrentWeights& weights,
               std::int64_t gates, bool reverse) {
  if (x.shape().rank() != 3) {
    throw ShapeError(fmt::format("{}: expected an input of shape (n, steps, in), found {}", what,
                                 to_string(x.shape())));
  }
  const Shape& hidden = weights.hidden.shape();
  if (hidden.rank() != 2 || hidden[0] != gates * hidden[1]) {
    throw ShapeError(fmt::format("{}: expected a hidden weight of shape ({} · h, h), found {}",
                                 what, gates, to_string(hidden)));
  }
  const Sizes sizes{x.shape()[0], x.shape()[1], x.shape()[2], hidden[1], gates, reverse};
  check_shape(what, "an input weight", weights.input, {sizes.wide(), sizes.in});
  for (const Variable* bias : {&weights.input_bias, &weights.hidden_bias}) {
    if (bias->defined()) check_shape(what, "a bias", *bias, {sizes.wide()});
  }
  return sizes;
}

// The states of all steps: (n, steps, h), or (n, steps, 2 · h) of h_t and c_t.
Variable recurrent(const char* what, const Sizes& s, const Variable& x,
                   const RecurrentWeights& weights, const Variable& hidden, const Variable& cell) {
  std::vector<Variable> inputs{x, weights.input, weights.hidden};
  for (const Variable* state : {&hidden, &cell}) {
    if (state->defined()) check_shape(what, "a state", *state, {s.samples, s.hidden});
  }
  // Those that are not there have a place all the same.
  for (const Variable* one : {&weights.input_bias, &weights.hidden_bias, &hidden, &cell}) {
    inputs.push_back(one->defined() ? *one : Variable(Tensor::empty({0}, x.dtype())));
  }
  const bool is_lstm = s.gates == 4;
  const std::int64_t features = is_lstm ? 2 * s.hidden : s.hidden;
  Tensor result = Tensor::empty({s.samples, s.steps, features}, x.dtype());
  Recorded of;
  dispatch_kernel(x.dtype(), [&]<class T>() {
    of = run<T>(s, x, weights, hidden, cell);
    const T* h = std::as_const(of.hidden).data<T>() + s.state();
    const T* c = is_lstm ? std::as_const(of.cell).data<T>() + s.state() : nullptr;
    s.for_each_row([&](std::int64_t row, std::int64_t to) {
      T* out = std::copy_n(h + row * s.hidden, s.hidden, result.data<T>() + to * features);
      if (is_lstm) std::copy_n(c + row * s.hidden, s.hidden, out);
    });
  });
  return record(result, std::move(inputs),
                [s, of, w = weights.input.value(), u = weights.hidden.value()](
                    const Tensor& gradient, Slots slots) {
                  dispatch_kernel(gradient.dtype(), [&]<class T>() {
                    const Gradients found = run_backward<T>(s, of, u, gradient);
                    const T *of_input = found.of_input.data<T>(),
                            *of_hidden = found.of_hidden.data<T>();
                    slots[0].receive([&](Tensor& target, bool accumulate) {
                      Tensor rows = Tensor::empty({s.rows(), s.in}, gradient.dtype());
                      kernels::gemm(Transpose::no, Transpose::no, s.rows(), s.in, s.wide(),
                                    of_input, w.data<T>(), rows.data<T>(), false);
                      if (!accumulate) target.fill(0);
                      s.for_each_row([&](std::int64_t row, std::int64_t to) {
                        kernels::add_scaled(s.in, T{1}, std::as_const(rows).data<T>() + row * s.in,
                                            target.data<T>() + to * s.in);
                      });
                    });
                    const auto weight = [&](GradientSlot& slot, const T* before,
                                            const Tensor& inputs, std::int64_t in) {
                      slot.receive([&](Tensor& target, bool accumulate) {
                        kernels::gemm(Transpose::yes, Transpose::no, s.wide(), in, s.rows(), before,
                                      inputs.data<T>(), target.data<T>(), accumulate);
                      });
                    };
                    weight(slots[1], of_input, of.x, s.in);
                    weight(slots[2], of_hidden, of.hidden, s.hidden);
                    const auto bias = [&](GradientSlot& slot, const T* before) {
                      slot.receive([&](Tensor& target, bool accumulate) {
                        kernels::sum_rows(s.rows(), s.wide(), before, target.data<T>(), accumulate);
                      });
                    };
                    bias(slots[3], of_input);
                    bias(slots[4], of_hidden);
                    slots[5].pass(found.hidden);
                    slots[6].pass(found.cell);
                  });
                });
}

// The states of the step that is made last.
Variable last_of(const Sizes& s, const Variable& states, std::int64_t begin) {
  const std::int64_t step = s.at(s.steps - 1);
  return reshape(slice(slice(states, 1, step, step + 1), 2, begin, begin + s.hidden),
                 {s.samples, s.hidden});
}

}  // namespace

LstmResult lstm(const Variable& x, const RecurrentWeights& weights, const Variable& hidden,
                const Variable& cell, bool reverse) {
  const Sizes s = sizes_of("lstm", x, weights, 4, reverse);
  if (s.steps == 0) throw ShapeError("lstm: expected at least one step");
  const Variable states = recurrent("lstm", s, x, weights, hidden, cell);
  return {slice(states, 2, 0, s.hidden), last_of(s, states, 0), last_of(s, states, s.hidden)};
}

GruResult gru(const Variable& x, const RecurrentWeights& weights, const Variable& hidden,
              bool reverse) {
  const Sizes s = sizes_of("gru", x, weights, 3, reverse);
  if (s.steps == 0) throw ShapeError("gru: expected at least one step");
  const Variable states = recurrent("gru", s, x, weights, hidden, {});
  return {states, last_of(s, states, 0)};
}

}  // namespace lockstep
