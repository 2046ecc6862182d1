#include "lockstep/optim/moving_average.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "lockstep/core/error.hpp"
#include "optim/collect_parameters.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

ExponentialMovingAverage::ExponentialMovingAverage(const std::vector<NamedParameter>& parameters,
                                                   const MovingAverageOptions& options)
    : options_(options) {
  if (!(options.decay >= 0 && options.decay < 1)) {
    throw OptionError(
        fmt::format("moving average: expected 0 <= decay < 1, found {}", options.decay));
  }
  optim::KnownParameters known = optim::collect_parameters(parameters, "moving average");
  for (NamedParameter& named : known.parameters) {
    Tensor average = named.parameter.value().clone();
    entries_.push_back({std::move(named), std::move(average)});
  }
  aliases_ = std::move(known.aliases);
}

void ExponentialMovingAverage::require_own_values(const char* what) const {
  if (!exchanged_) return;
  throw StateError(fmt::format("{} while the parameters have their averages as values", what));
}

void ExponentialMovingAverage::update() {
  require_own_values("an update of the moving average");
  const auto made = static_cast<double>(++updates_);
  const double decay =
      options_.warm_up ? std::min(options_.decay, (1 + made) / (10 + made)) : options_.decay;
  for (Entry& entry : entries_) {
    const Tensor& value = entry.named.parameter.value();
    dispatch_kernel(value.dtype(), [&]<class T>() {
      kernels::move_towards(value.size(), static_cast<T>(1 - decay), value.data<T>(),
                            entry.average.data<T>());
    });
  }
}

void ExponentialMovingAverage::exchange() {
  for (Entry& entry : entries_) {
    Tensor& value = entry.named.parameter.mutable_value();
    dispatch_kernel(value.dtype(), [&]<class T>() {
      std::swap_ranges(value.data<T>(), value.data<T>() + value.size(), entry.average.data<T>());
    });
  }
  exchanged_ = !exchanged_;
}

const Tensor& ExponentialMovingAverage::average(const std::string& name) const {
  const auto has_name = [&name](const Entry& entry) { return entry.named.name == name; };
  const auto found = std::find_if(entries_.begin(), entries_.end(), has_name);
  if (found == entries_.end()) {
    throw NameError(fmt::format("there is no moving average of a parameter '{}'", name));
  }
  return found->average;
}

StateDict ExponentialMovingAverage::state_dict() const {
  require_own_values("saving the moving average");
  StateDict averages;
  for (const Entry& entry : entries_) averages[entry.named.name] = entry.average;
  return {{"updates", updates_}, {"average", std::move(averages)}};
}

void ExponentialMovingAverage::check_restore(const StateDict& source) const {
  require_own_values("restoring the moving average");
  if (source.at("updates").as_int() < 0) {
    throw StateError(fmt::format("moving average: expected at least 0 updates, found {}",
                                 source.at("updates").as_int()));
  }
  const StateDict& averages = source.at("average").as_dict();
  for (const Entry& entry : entries_) {
    const std::string what = fmt::format("moving average of '{}'", entry.named.name);
    check_same(entry.average, found_in(averages, entry.named.name), what.c_str());
  }
  std::set<std::string> names;
  for (const Entry& entry : entries_) names.insert(entry.named.name);
  for (const auto& [name, value] : averages) {
    if (!names.contains(name) && !aliases_.contains(name)) {
      throw StateError(
          fmt::format("the state dict has a moving average of '{}', which is not known", name));
    }
  }
}

// Under the name itself, or another one of the same parameter.
const Tensor& ExponentialMovingAverage::found_in(const StateDict& averages,
                                                 const std::string& name) const {
  if (averages.contains(name)) return averages.at(name).as_tensor();
  for (const auto& [alias, first] : aliases_) {
    if (first == name && averages.contains(alias)) return averages.at(alias).as_tensor();
  }
  throw StateError(fmt::format("the state dict lacks the moving average of '{}'", name));
}

void ExponentialMovingAverage::restore(const StateDict& source) {
  check_restore(source);
  const StateDict& averages = source.at("average").as_dict();
  for (Entry& entry : entries_) {
    entry.average.copy_from(found_in(averages, entry.named.name));
  }
  updates_ = source.at("updates").as_int();
}

UseAverage::UseAverage(ExponentialMovingAverage& average) : average_(average) {
  average.require_own_values("a second use of the moving average");
  average.exchange();
}

}  // namespace lockstep
