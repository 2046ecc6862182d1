#pragma once

#include <cstdint>

#include "lockstep/tensor/activation.hpp"

// Activation functions, for T = float and double, as tensor/kernels.hpp has them.
namespace lockstep::kernels {

/// y[i] = f(x[i]); y may be x.
template <class T>
void activate(Activation f, std::int64_t n, const T* x, T* y);

/// y[i][j] = f(y[i][j] + bias[j])
template <class T>
void activate_rows(Activation f, std::int64_t rows, std::int64_t columns, const T* bias, T* y);

/// y[i][j] = f(y[i][j] + bias[i])
template <class T>
void activate_columns(Activation f, std::int64_t rows, std::int64_t columns, const T* bias, T* y);

/// dx[i] (+)= dy[i] · f'(x[i]), from y = f(x). That of relu at 0 is 0, and of NaN too.
template <class T>
void activation_gradient(Activation f, std::int64_t n, const T* y, const T* dy, T* dx,
                         bool accumulate);

/// y[i] = x[i] · Φ(x[i]), with Φ of the normal distribution, and where `slope` is not null, slope[i] is the derivative
/// Φ(x[i]) + x[i] · φ(x[i]), which is nearly free here.
template <class T>
void gelu(std::int64_t n, const T* x, T* y, T* slope);

/// y[i] = x[i] · σ(x[i]), with σ(x) = 1 / (1 + exp(-x)), and slope[i] = σ(x[i]) · (1 + x[i] · (1 - σ(x[i]))) as above.
template <class T>
void silu(std::int64_t n, const T* x, T* y, T* slope);

/// y[i] = ln(1 + exp(beta · x[i])) / beta
template <class T>
void softplus(std::int64_t n, T beta, const T* x, T* y);
/// dx[i] (+)= dy[i] · σ(beta · x[i])
template <class T>
void softplus_gradient(std::int64_t n, T beta, const T* x, const T* dy, T* dx, bool accumulate);

/// y[i] = x[i] where that is positive, slope · x[i] elsewhere.
template <class T>
void leaky_relu(std::int64_t n, T slope, const T* x, T* y);
template <class T>
void leaky_relu_gradient(std::int64_t n, T slope, const T* x, const T* dy, T* dx, bool accumulate);

/// y[i] = x[i] where that is positive, alpha · (exp(x[i]) - 1) elsewhere.
template <class T>
void elu(std::int64_t n, T alpha, const T* x, T* y);
template <class T>
void elu_gradient(std::int64_t n, T alpha, const T* x, const T* dy, T* dx, bool accumulate);

}  // namespace lockstep::kernels
