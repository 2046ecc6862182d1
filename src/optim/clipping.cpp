#include "lockstep/optim/clipping.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_set>
#include <vector>

#include "autograd/state.hpp"
#include "lockstep/core/error.hpp"
#include "optim/clip.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep::optim {
namespace {

constexpr double margin = 1e-6;

template <class T>
double magnitude(const Tensor& gradient, double p) {
  const T* x = gradient.data<T>();
  const std::int64_t n = gradient.size();
  if (p == 2) return kernels::sum_squares(n, x);
  double result = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double size = std::abs(static_cast<double>(x[i]));
    if (!std::isinf(p)) {
      result += std::pow(size, p);
    } else if (size > result || std::isnan(size)) {
      result = size;
    }
  }
  return result;
}

// Σ |x|^p of the gradient's numbers, or their largest magnitude where p is infinite.
double magnitude(const Parameter& parameter, double p) {
  const autograd::VariableState& state = *autograd::VariableState::of(parameter);
  if (p == 2 && state.flags->reduced) {
    const autograd::ParameterState& owned = *state.parameter;
    if (const auto measured = owned.owner->sum_squares(owned.index)) return *measured;
  }
  return dispatch_floating(parameter.dtype(),
                           [&]<class T>() { return magnitude<T>(parameter.grad(), p); });
}

std::optional<int> non_finite_rank(const Parameter& parameter) {
  const autograd::VariableState& state = *autograd::VariableState::of(parameter);
  if (!state.flags->reduced || state.parameter->owner == nullptr) return std::nullopt;
  return state.parameter->owner->non_finite_rank();
}

double root(double magnitude, double p) {
  return std::isinf(p) ? magnitude : p == 2 ? std::sqrt(magnitude) : std::pow(magnitude, 1 / p);
}

bool is_above(double norm, const std::optional<double>& limit) {
  return limit && norm > *limit && std::isfinite(norm);
}

// Whether there is one to clip, which must not wait to be reduced.
bool has_gradient(const NamedParameter& named) {
  const Parameter& parameter = named.parameter;
  if (!parameter.defined()) {
    throw StateError(fmt::format("parameter '{}' is undefined", named.name));
  }
  const autograd::GradientFlags& flags = *autograd::VariableState::of(parameter)->flags;
  if (!flags.has_gradient || !flags.requires_grad) return false;
  if (flags.unreduced) throw_unreduced();
  return true;
}

void scale_gradient(Parameter& parameter, double factor) {
  dispatch_floating(parameter.dtype(), [&]<class T>() {
    kernels::scale(parameter.size(), static_cast<T>(factor), parameter.mutable_grad().data<T>());
  });
}

void clamp_gradient(Parameter& parameter, double limit) {
  dispatch_floating(parameter.dtype(), [&]<class T>() {
    const T most = static_cast<T>(limit);
    for (T& number : parameter.mutable_grad().span<T>()) number = std::clamp(number, -most, most);
  });
}

}  // namespace

void Clipping::check() const {
  const auto positive = [](const char* name, const std::optional<double>& limit) {
    if (limit && !(*limit > 0)) {
      throw OptionError(fmt::format("clipping: expected {} > 0, found {}", name, *limit));
    }
  };
  positive("value", value);
  positive("norm", norm);
  positive("global_norm", global_norm);
  if (!(norm_type >= 1)) {
    throw OptionError(fmt::format("clipping: expected norm_type >= 1, found {}", norm_type));
  }
}

void throw_unreduced() {
  throw StateError(
      "a step before its gradients are reduced: a backward outside of no_sync(), or finish(), "
      "comes "
      "first");
}

ClippingReport clip(const VisitParameters& parameters, const Clipping& clipping, double scale,
                    double& factor) {
  const double p = clipping.norm_type;
  const double unit = std::abs(scale);
  const auto norm_of = [unit, p](double size) { return unit * root(size, p); };
  double total = 0;
  const auto add = [&total, p](double size) {
    if (!std::isinf(p)) {
      total += size;
    } else if (size > total || std::isnan(size)) {
      total = size;
    }
  };
  ClippingReport report;
  double largest = -1;
  const void* which_is_largest = nullptr;
  parameters([&](const NamedParameter& named) {
    if (!has_gradient(named)) return;
    const double size = magnitude(named.parameter, p);
    if (!std::isfinite(norm_of(size))) {
      if (report.non_finite.empty()) report.non_finite_rank = non_finite_rank(named.parameter);
      report.non_finite.push_back(named.name);
    }
    if (size > largest) {
      largest = size;
      which_is_largest = named.parameter.identity();
    }
    add(size);
  });
  report.global_norm = norm_of(total);
  if (report.non_finite.empty() && !std::isfinite(report.global_norm)) {
    parameters([&](const NamedParameter& named) {
      if (named.parameter.identity() == which_is_largest) report.non_finite.push_back(named.name);
    });
  }
  if (!report.non_finite.empty() && clipping.non_finite != NonFinite::ignore) return report;
  if (clipping.value || clipping.norm) {
    total = 0;
    parameters([&](const NamedParameter& named) {
      if (!has_gradient(named)) return;
      Parameter parameter = named.parameter;
      if (clipping.value) clamp_gradient(parameter, *clipping.value / unit);
      double size = magnitude(parameter, p);
      const double norm = norm_of(size);
      if (is_above(norm, clipping.norm)) {
        scale_gradient(parameter, *clipping.norm / (norm + margin));
        size = magnitude(parameter, p);
      }
      add(size);
    });
  }
  const double norm = norm_of(total);
  factor = is_above(norm, clipping.global_norm) ? *clipping.global_norm / (norm + margin) : 1.0;
  return report;
}

bool check_finite(const Clipping& clipping, const ClippingReport& report) {
  if (report.non_finite.empty() || clipping.non_finite == NonFinite::ignore) return true;
  if (clipping.non_finite == NonFinite::skip) return false;
  const std::size_t others = report.non_finite.size() - 1;
  throw StateError(fmt::format(
      "the gradient of parameter '{}' is not finite{}{}", report.non_finite.front(),
      others == 0 ? "" : fmt::format(", nor are {} others", others),
      report.non_finite_rank ? fmt::format(" (rank {})", *report.non_finite_rank) : ""));
}

ClippingReport clip_gradients(const std::vector<NamedParameter>& parameters,
                              const Clipping& clipping) {
  clipping.check();
  std::vector<NamedParameter> distinct;
  std::unordered_set<const void*> known;
  for (const NamedParameter& named : parameters) {
    if (known.insert(named.parameter.identity()).second) distinct.push_back(named);
  }
  const VisitParameters visit_distinct = [&distinct](const auto& visit) {
    for (const NamedParameter& named : distinct) visit(named);
  };
  double factor = 1;
  ClippingReport report = clip(visit_distinct, clipping, 1.0, factor);
  check_finite(clipping, report);
  if (factor != 1) {
    for (NamedParameter& named : distinct) {
      if (has_gradient(named)) scale_gradient(named.parameter, factor);
    }
  }
  return report;
}

}  // namespace lockstep::optim
