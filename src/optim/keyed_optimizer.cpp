#include "lockstep/optim/keyed_optimizer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "optim/clip.hpp"

namespace lockstep {

namespace {

// Calls those that are there now and still are when their turn comes, since a hook may add and
// remove hooks.
template <class Hooks, class... Arguments>
void run_hooks(const Hooks& hooks, Arguments&&... arguments) {
  std::vector<std::int64_t> handles;
  for (const auto& [handle, hook] : hooks) handles.push_back(handle);
  for (const std::int64_t handle : handles) {
    const auto has_handle = [handle](const auto& hook) { return hook.first == handle; };
    const auto found = std::find_if(hooks.begin(), hooks.end(), has_handle);
    if (found == hooks.end()) continue;
    const auto hook = found->second;
    hook(arguments...);
  }
}

void check_options(const StepOptions& options) {
  if (std::isfinite(options.gradient_scale) && options.gradient_scale != 0) return;
  throw OptionError(fmt::format("expected a gradient_scale that is finite and not zero, found {}",
                                options.gradient_scale));
}

template <class Function>
void require_function(const Function& function, const char* what) {
  if (!function) throw OptionError(fmt::format("{} must not be empty", what));
}

}  // namespace

// That of a step, with what is to be done there where a gradient is not finite.
std::optional<optim::Clipping> KeyedOptimizer::clipping_for(const StepOptions& options) const {
  std::optional<optim::Clipping> clipping = clipping_;
  if (options.non_finite) {
    if (!clipping) clipping.emplace();
    clipping->non_finite = *options.non_finite;
  }
  return clipping;
}

StepReport KeyedOptimizer::step(const StepOptions& options) {
  const timeline::Span span("step");
  StepReport report;
  double factor = 1;
  agree([&] {
    check_options(options);
    check_step();
    run_before_step();
    if (const std::optional<optim::Clipping> clipping = clipping_for(options)) {
      optim::ClippingReport clipped =
          optim::clip([this](const auto& visit) { visit_parameters(visit); }, *clipping,
                      options.gradient_scale, factor);
      report.applied = optim::check_finite(*clipping, clipped);
      report.gradient_norm = clipped.global_norm;
      report.non_finite = std::move(clipped.non_finite);
    }
  });
  if (!report.applied) return report;
  report.empty = !update(options.gradient_scale * factor);
  agree([&] {
    if (report.empty && !options.allow_none) check_reduced();
    run_after_step(report);
  });
  return report;
}

// Throws where parameters wait for gradients that were to be reduced.
void KeyedOptimizer::check_reduced() const {
  visit_parameters([](const NamedParameter& named) {
    const Parameter& parameter = named.parameter;
    if (!parameter.requires_grad() || parameter.gradient_owner() == nullptr) return;
    throw StateError(fmt::format(
        "a step without a gradient, of '{}' or any other parameter: either nothing was reduced, or "
        "zero_grad() came between the backward and the step",
        named.name));
  });
}

double KeyedOptimizer::step_with(const Closure& closure) {
  require_function(closure, "the closure of a step");
  check_step();
  const double loss = closure();
  step();
  return loss;
}

StepReport KeyedOptimizer::step_parameter(const Parameter& parameter, const StepOptions& options) {
  check_options(options);
  check_step();
  if (!contains(parameter)) {
    throw NameError(fmt::format("no param group has the parameter of shape {}",
                                parameter.defined() ? to_string(parameter.shape()) : "undefined"));
  }
  StepReport report;
  if (const std::optional<optim::Clipping> clipping = clipping_for(options)) {
    if (clipping->global_norm) {
      throw OptionError(
          "clipping by the global norm needs the gradients of all parameters at once");
    }
    const NamedParameter alone("", parameter);
    double factor = 1;
    optim::ClippingReport clipped = optim::clip([&alone](const auto& visit) { visit(alone); },
                                                *clipping, options.gradient_scale, factor);
    if (!clipped.non_finite.empty()) {
      // To find the name takes a search, which a step should not wait for.
      visit_parameters([&](const NamedParameter& named) {
        if (named.parameter == parameter) clipped.non_finite = {named.name};
      });
      report.applied = optim::check_finite(*clipping, clipped);
      report.non_finite = std::move(clipped.non_finite);
      if (!report.applied) return report;
    }
  }
  update(parameter, options.gradient_scale);
  return report;
}

void KeyedOptimizer::zero_grad(bool set_to_none) {
  visit_parameters([set_to_none](const NamedParameter& named) {
    Parameter parameter = named.parameter;
    parameter.zero_grad(set_to_none);
  });
}

void KeyedOptimizer::set_clipping(const optim::Clipping& clipping) {
  clipping.check();
  clipping_ = clipping;
}

std::int64_t KeyedOptimizer::before_step(BeforeStep hook) {
  require_function(hook, "a hook before a step");
  before_.emplace_back(next_hook_, std::move(hook));
  return next_hook_++;
}

std::int64_t KeyedOptimizer::after_step(AfterStep hook) {
  require_function(hook, "a hook after a step");
  after_.emplace_back(next_hook_, std::move(hook));
  return next_hook_++;
}

void KeyedOptimizer::remove_hook(std::int64_t handle) {
  const auto has_handle = [handle](const auto& hook) { return hook.first == handle; };
  std::erase_if(before_, has_handle);
  std::erase_if(after_, has_handle);
}

void KeyedOptimizer::run_before_step() { run_hooks(before_, *this); }

void KeyedOptimizer::run_after_step(const StepReport& report) { run_hooks(after_, *this, report); }

ParamGroup& KeyedOptimizer::param_group(std::string_view name) {
  const std::vector<std::string> names = group_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    throw NameError(
        fmt::format("no param group is called '{}'; there are {}", name, fmt::join(names, ", ")));
  }
  return param_groups()[static_cast<std::size_t>(found - names.begin())];
}

}  // namespace lockstep
