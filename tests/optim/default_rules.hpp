#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "lockstep/optim/adadelta.hpp"
#include "lockstep/optim/adagrad.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/adamax.hpp"
#include "lockstep/optim/asgd.hpp"
#include "lockstep/optim/lamb.hpp"
#include "lockstep/optim/lars.hpp"
#include "lockstep/optim/lion.hpp"
#include "lockstep/optim/nadam.hpp"
#include "lockstep/optim/radam.hpp"
#include "lockstep/optim/rmsprop.hpp"
#include "lockstep/optim/rprop.hpp"
#include "lockstep/optim/sgd.hpp"

namespace lockstep::testing {

using Rules = std::vector<std::unique_ptr<optim::UpdateRule>>;

template <class... Rule>
Rules one_of_each() {
  Rules rules;
  (rules.push_back(std::make_unique<Rule>()), ...);
  return rules;
}

/// Every update rule, with its default options.
inline Rules default_rules() {
  using namespace optim;
  return one_of_each<SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, Adadelta, RMSprop, Rprop,
                     ASGD, LAMB, LARS, Lion>();
}

/// The rule of that name with these options; nullptr where there is none.
inline std::unique_ptr<optim::UpdateRule> make_rule(std::string_view name,
                                                    const StateDict& options = {}) {
  for (auto& rule : default_rules()) {
    if (rule->name() != name) continue;
    rule->set(options);
    return std::move(rule);
  }
  return nullptr;
}

}  // namespace lockstep::testing
