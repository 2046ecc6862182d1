#include "lockstep/state/stateful.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "lockstep/core/error.hpp"
#include "state/loading.hpp"

namespace lockstep {

Renaming::Renaming(std::map<std::string, std::string> names)
    : rename_([names = std::move(names)](const std::string& name) {
        const auto found = names.find(name);
        return found == names.end() ? name : found->second;
      }) {}

namespace {

struct Merged {
  StateDict state;  // as the object is to be
  LoadReport report;
};

StateValue fitted(const std::string& name, const StateValue& found, const StateValue& own,
                  const LoadOptions& options) {
  const auto* numbers = std::get_if<Tensor>(&found.variant());
  const auto* wanted = std::get_if<Tensor>(&own.variant());
  if (!options.convert_dtype || numbers == nullptr || wanted == nullptr ||
      !is_floating(numbers->dtype()) || !is_floating(wanted->dtype()) ||
      numbers->dtype() == wanted->dtype()) {
    return found;
  }
  return converted(*numbers, wanted->dtype(), fmt::format("'{}'", name));
}

Merged merge(const StateDict& own, const StateDict& source, const LoadOptions& options) {
  Merged result;
  LoadReport& report = result.report;
  std::map<std::string, std::string> found_as;
  for (const auto& [key, value] : source) {
    const std::string name = options.rename(key);
    if (!name.starts_with(options.prefix)) continue;
    const auto [known, added] = found_as.emplace(name, key);
    if (!added) {
      if (bit_equal(value, source.at(known->second))) continue;
      throw StateError(fmt::format("'{}' and '{}' of the state dict are both '{}' here, and differ",
                                   known->second, key, name));
    }
    if (own.contains(name)) {
      result.state[name] = fitted(name, value, own.at(name), options);
      report.loaded.push_back(name);
    } else {
      report.unexpected.push_back(name);
    }
  }
  for (const auto& [name, value] : own) {
    if (result.state.contains(name)) continue;
    (name.starts_with(options.prefix) ? report.missing : report.kept).push_back(name);
    result.state[name] = value.clone();  // restore() may write to the memory of its own state
  }
  for (auto* names : {&report.loaded, &report.unexpected}) std::sort(names->begin(), names->end());
  if (options.strict) check_strict(report);
  return result;
}

}  // namespace

LoadReport Stateful::check_load(const StateDict& source, const LoadOptions& options) const {
  const Merged merged = merge(state_dict(), source, options);
  check_restore(merged.state);
  return merged.report;
}

LoadReport Stateful::load_state_dict(const StateDict& source, const LoadOptions& options) {
  const Merged merged = merge(state_dict(), source, options);
  restore(merged.state);
  return merged.report;
}

}  // namespace lockstep
