#pragma once

#include "lockstep/autograd/variable.hpp"

#pragma GCC visibility push(default)

// Losses, of f32 and f64: one number, the mean over elements or rows, which is 0 where there are none.
// Prediction and target must agree in shape and dtype (ShapeError, DTypeError), and both get a gradient.
// Labels are i64 of shape (rows), in [0, classes): DataError for one that is not.
namespace lockstep {

/// Mean of (prediction - target)².
Variable mean_squared_error(const Variable& prediction, const Variable& target);

/// Mean of |prediction - target|; where they are equal, the derivative is 0.
Variable l1_loss(const Variable& prediction, const Variable& target);

/// Mean of d² / 2 where |d| ≤ delta, and delta · (|d| - delta / 2) elsewhere, with d = prediction - target:
/// Huber, "Robust estimation of a location parameter", 1964. OptionError unless delta > 0.
Variable huber_loss(const Variable& prediction, const Variable& target, double delta = 1);

/// The Kullback–Leibler divergence Σ p · (ln p - log_q) of the rows (the last axis) of p from those that
/// log_q has the logarithms of, as log_softmax() gives them: the mean over rows, which PyTorch calls
/// batchmean. Nothing where p is 0.
Variable kl_divergence(const Variable& log_q, const Variable& p);

/// Mean over the rows of -log_probabilities[label], with log_probabilities of (rows, classes).
Variable nll_loss(const Variable& log_probabilities, const Tensor& labels);

/// The same of log_softmax(logits), in one operation.
Variable cross_entropy(const Variable& logits, const Tensor& labels);

/// Mean of -(target · ln sigmoid(logit) + (1 - target) · ln(1 - sigmoid(logit))), in the form that no logit
/// makes infinite.
Variable binary_cross_entropy(const Variable& logits, const Variable& target);

}  // namespace lockstep

#pragma GCC visibility pop
