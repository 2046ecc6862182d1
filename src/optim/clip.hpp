#pragma once

#include <functional>
#include <vector>

#include "lockstep/optim/clipping.hpp"

namespace lockstep::optim {

/// Calls the function for each parameter there is.
using VisitParameters =
    std::function<void(const std::function<void(const NamedParameter&)>& visit)>;

/// Those that have a gradient and require one, each once, under the first of its names.
std::vector<NamedParameter> with_gradient(const VisitParameters& parameters);

/// Measures the gradients, times `scale`, and clips them by value and by their own norms in place.
/// `factor` becomes what is still to be multiplied with for the limit on the global norm. Where the
/// report has parameters that are not finite, nothing has changed.
ClippingReport clip(std::vector<NamedParameter>& parameters, const Clipping& clipping, double scale,
                    double& factor);

/// StateError for the parameters of the report that are not finite, unless the step is to be skipped
/// for them.
void check_finite(const Clipping& clipping, const ClippingReport& report);

}  // namespace lockstep::optim
