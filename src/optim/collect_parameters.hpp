#pragma once

#include <map>
#include <string>
#include <vector>

#include "lockstep/autograd/parameter.hpp"

namespace lockstep::optim {

/// Distinct parameters, and their other names.
struct KnownParameters {
  std::vector<NamedParameter> parameters;      // each under the first of its names
  std::map<std::string, std::string> aliases;  // from another name to the first
};

/// OptionError where there are none, saying that `who` got none; StateError for an undefined one;
/// NameError where two different ones have the same name.
KnownParameters collect_parameters(const std::vector<NamedParameter>& parameters, const char* who);

}  // namespace lockstep::optim
