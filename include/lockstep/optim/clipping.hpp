#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lockstep/autograd/parameter.hpp"

#pragma GCC visibility push(default)

namespace lockstep::optim {

/// What to do where a gradient holds NaN or infinity, or the norm of one or of all overflows.
enum class NonFinite {
  error,   ///< StateError, which names the first such parameter
  skip,    ///< no step, and no change of the gradients
  ignore,  ///< the step is made with whatever is there
};

/// Limits on gradients. Those that are set apply in this order. Without any, gradients are measured
/// and looked through for what is not finite.
///
/// Where that is ignored, infinity becomes the limit on each number and NaN stays NaN; a limit on a norm
/// leaves gradients whose norm is not finite as they are. (PyTorch multiplies them with zero or NaN, and
/// with them all others.)
struct Clipping {
  std::optional<double> value = std::nullopt;        ///< of each number, to [-value, value]
  std::optional<double> norm = std::nullopt;         ///< of each parameter's gradient by itself
  std::optional<double> global_norm = std::nullopt;  ///< of all gradients as one vector
  double norm_type = 2;  ///< p of the p-norm; infinity for the largest magnitude
  NonFinite non_finite = NonFinite::error;

  /// OptionError for a limit that is not positive, or a norm_type below 1.
  void check() const;
};

struct ClippingReport {
  /// Norm of all gradients as one vector, as they were before.
  double global_norm = 0;
  /// Parameters with a gradient that is not finite, or the one with the largest where only the norm
  /// of all overflows; with them, nothing was clipped unless they are ignored.
  std::vector<std::string> non_finite = {};
  /// The lowest rank whose own gradient was not finite before these were reduced, where the reducer has measured them.
  std::optional<int> non_finite_rank = std::nullopt;
};

/// Clips the gradients of those parameters that have one and require one, in place. A gradient
/// whose norm is above its limit is scaled by limit / (norm + 1e-6): Pascanu, Mikolov, Bengio, "On
/// the difficulty of training recurrent neural networks", arXiv:1211.5063. Where gradients were
/// reduced before, all ranks do the same.
/// OptionError for bad limits; StateError for a gradient that is not finite, unless it is to be
/// skipped or ignored, and for an undefined parameter.
ClippingReport clip_gradients(const std::vector<NamedParameter>& parameters,
                              const Clipping& clipping);

}  // namespace lockstep::optim

#pragma GCC visibility pop
