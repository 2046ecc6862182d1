#pragma once

#include <cstdint>

// Numeric kernels on raw memory, for T = float and double. Results depend on sizes and values
// alone, never on an address: reductions run in an order of their own, and transcendental functions
// treat the last elements of a range as they treat all others.
namespace lockstep::kernels {

/// y[i] = exp(x[i])
template <class T>
void exp(std::int64_t n, const T* x, T* y);

/// y[i] = ln(x[i])
template <class T>
void log(std::int64_t n, const T* x, T* y);

/// Sum of x in blocks of fixed size, the blocks added up in double precision.
template <class T>
double sum(std::int64_t n, const T* x);

/// Sum of x · y, multiplied and added up in double precision, in blocks as sum() has them.
template <class T>
double dot(std::int64_t n, const T* x, const T* y);

/// Sum of x², in double precision and in the blocks of core/squares.hpp.
template <class T>
double sum_squares(std::int64_t n, const T* x);

/// y[j] (+)= sum over rows i of x[i][j]
template <class T>
void sum_rows(std::int64_t rows, std::int64_t columns, const T* x, T* y, bool accumulate);

/// y += factor · x
template <class T>
void add_scaled(std::int64_t n, T factor, const T* x, T* y);

/// y += share · (x - y)
template <class T>
void move_towards(std::int64_t n, T share, const T* x, T* y);

/// x *= factor
template <class T>
void scale(std::int64_t n, T factor, T* x);

/// y[i] = exp(x[i]) / Σ exp(x[i]) for each row
template <class T>
void softmax(std::int64_t rows, std::int64_t length, const T* x, T* y);

/// dx[i] (+)= y · (dy[i] - Σ dy[i] · y), from y = softmax(x[i])
template <class T>
void softmax_gradient(std::int64_t rows, std::int64_t length, const T* y, const T* dy, T* dx,
                      bool accumulate);

/// y[i] = x[i] - ln Σ exp(x[i]) for each row
template <class T>
void log_softmax(std::int64_t rows, std::int64_t length, const T* x, T* y);

/// dx[i] (+)= dy[i] - exp(y) · Σ dy[i], from y = log_softmax(x[i])
template <class T>
void log_softmax_gradient(std::int64_t rows, std::int64_t length, const T* y, const T* dy, T* dx,
                          bool accumulate);

/// probabilities[i] = softmax(logits[i]) for each row; returns the sum over rows of -log
/// probabilities[i][labels[i]]. Labels must be valid.
template <class T>
double softmax_cross_entropy(std::int64_t rows, std::int64_t classes, const T* logits,
                             const std::int64_t* labels, T* probabilities);

}  // namespace lockstep::kernels
