#pragma once

#include <functional>
#include <vector>

#include "lockstep/optim/clipping.hpp"

namespace lockstep::optim {

/// Calls the function for each parameter there is.
using VisitParameters =
    std::function<void(const std::function<void(const NamedParameter&)>& visit)>;

/// StateError: a step comes before its gradients are reduced.
[[noreturn]] void throw_unreduced();

/// Those that have a gradient and require one, each once, under the first of its names. Throws where
/// one is not reduced yet.
std::vector<NamedParameter> with_gradient(const VisitParameters& parameters);

/// Measures the gradients, times `scale`, and clips them by value and by their own norms in place.
/// `factor` becomes what is still to be multiplied with for the limit on the global norm. Where the
/// report has parameters that are not finite, and these are not ignored, nothing has changed.
ClippingReport clip(std::vector<NamedParameter>& parameters, const Clipping& clipping, double scale,
                    double& factor);

/// Whether a step is to be made for all that is not finite; StateError where that is an error.
bool check_finite(const Clipping& clipping, const ClippingReport& report);

}  // namespace lockstep::optim
