#pragma once

#include <memory>
#include <vector>

#include "optim/default_rules.hpp"

namespace lockstep::testing {

/// One of each update rule, with options that give it all of its slots.
inline std::vector<std::unique_ptr<optim::UpdateRule>> all_rules() {
  std::vector<std::unique_ptr<optim::UpdateRule>> rules;
  const auto add = [&rules](const optim::UpdateRule& rule) { rules.push_back(rule.clone()); };
  add(optim::SGD({.momentum = 0.9, .dampening = 0.4}));
  add(optim::Adam({.amsgrad = true}));
  add(optim::AdamW());
  add(optim::NAdam());
  add(optim::RAdam());
  add(optim::Adamax());
  add(optim::Adagrad({.initial_accumulator_value = 0.1}));
  add(optim::Adadelta());
  add(optim::RMSprop({.momentum = 0.9, .centered = true}));
  add(optim::Rprop());
  add(optim::ASGD({.t0 = 2}));
  add(optim::LAMB());
  add(optim::LARS());
  add(optim::Lion());
  return rules;
}

}  // namespace lockstep::testing
