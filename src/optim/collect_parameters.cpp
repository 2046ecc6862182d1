#include "optim/collect_parameters.hpp"

#include <fmt/format.h>

#include "lockstep/core/error.hpp"

namespace lockstep::optim {

KnownParameters collect_parameters(const std::vector<NamedParameter>& parameters, const char* who) {
  if (parameters.empty()) throw OptionError(fmt::format("the {} got no parameters", who));
  KnownParameters known;
  std::map<std::string, const void*> by_name;
  std::map<const void*, std::string> by_identity;
  for (const NamedParameter& named : parameters) {
    if (!named.parameter.defined()) {
      throw StateError(fmt::format("parameter '{}' is undefined", named.name));
    }
    const void* identity = named.parameter.identity();
    const auto [same_name, is_new_name] = by_name.emplace(named.name, identity);
    if (!is_new_name) {
      if (same_name->second == identity) continue;
      throw NameError(fmt::format("two parameters are called '{}'", named.name));
    }
    const auto [first, is_first] = by_identity.emplace(identity, named.name);
    if (is_first) {
      known.parameters.push_back(named);
    } else {
      known.aliases.emplace(named.name, first->second);
    }
  }
  return known;
}

}  // namespace lockstep::optim
