#pragma once

#include <functional>

#include "lockstep/optim/clipping.hpp"

namespace lockstep::optim {

/// Calls the function for each parameter there is, once.
using VisitParameters =
    std::function<void(const std::function<void(const NamedParameter&)>& visit)>;

/// StateError: a step comes before its gradients are reduced.
[[noreturn]] void throw_unreduced();

/// Measures the gradients of those that have one and require one, times `scale`, and clips them by
/// value and by their own norms in place. `factor` becomes what is still to be multiplied with for the
/// limit on the global norm. Where the report has parameters that are not finite, and these are not
/// ignored, nothing has changed; nor where this throws, as it does for a gradient that is not reduced
/// yet.
ClippingReport clip(const VisitParameters& parameters, const Clipping& clipping, double scale,
                    double& factor);

/// Whether a step is to be made for all that is not finite; StateError where that is an error.
bool check_finite(const Clipping& clipping, const ClippingReport& report);

}  // namespace lockstep::optim
