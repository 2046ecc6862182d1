#include "lockstep/optim/by_name.hpp"

#include <fmt/format.h>

#include <array>
#include <string>
#include <type_traits>
#include <utility>

#include "lockstep/core/error.hpp"
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
#include "state/option_reader.hpp"

namespace lockstep::optim {
namespace {

template <class... Rules>
std::unique_ptr<UpdateRule> make_one_of(std::string_view name) {
  std::unique_ptr<UpdateRule> made;
  std::string known;
  const auto consider = [&]<class Rule>(std::type_identity<Rule>) {
    const Rule rule;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", rule.name());
    if (rule.name() == name) made = rule.clone();
  };
  (consider(std::type_identity<Rules>()), ...);
  if (made == nullptr) {
    throw NameError(fmt::format("there is no update rule '{}'; there are {}", name, known));
  }
  return made;
}

}  // namespace

std::unique_ptr<UpdateRule> make_rule(std::string_view name, const StateDict& hyper_parameters) {
  auto rule = make_one_of<Adadelta, Adagrad, Adam, AdamW, Adamax, ASGD, LAMB, LARS, Lion, NAdam,
                          RAdam, RMSprop, Rprop, SGD>(name);
  set_by_name(*rule, hyper_parameters);
  return rule;
}

void set_by_name(HyperParameters& target, const StateDict& hyper_parameters) {
  target.set(as_typed(target, hyper_parameters));
}

StateDict as_typed(const HyperParameters& target, const StateDict& hyper_parameters) {
  OptionReader reader(std::string(target.name()), hyper_parameters);
  StateDict typed;
  for (const auto& entry : hyper_parameters) {
    const std::string& name = entry.first;
    typed[name] = std::visit(
        [&]<class T>(const T&) -> StateValue {
          if constexpr (std::is_same_v<T, bool>) return reader.flag(name);
          if constexpr (std::is_same_v<T, std::int64_t>) return reader.integer(name);
          return reader.number(name);
        },
        target.get(name).variant());
  }
  return typed;
}

namespace {

using namespace schedule;

Anneal anneal(OptionReader& options) {
  return options.choice<Anneal>("anneal", {{"cosine", Anneal::cosine}, {"linear", Anneal::linear}},
                                Anneal::cosine);
}

Schedule make_constant(OptionReader& options) {
  const ConstantOptions defaults;
  return constant({.factor = options.number("factor", defaults.factor),
                   .steps = options.integer("steps", defaults.steps)});
}

Schedule make_step(OptionReader& options) {
  return step({.step_size = options.integer("step_size"),
               .gamma = options.number("gamma", schedule::StepOptions().gamma)});
}

Schedule make_multi_step(OptionReader& options) {
  return multi_step({.milestones = options.integers("milestones"),
                     .gamma = options.number("gamma", MultiStepOptions().gamma)});
}

Schedule make_exponential(OptionReader& options) {
  return exponential({.gamma = options.number("gamma")});
}

Schedule make_linear(OptionReader& options) {
  const LinearOptions defaults;
  return linear({.start = options.number("start", defaults.start),
                 .end = options.number("end", defaults.end),
                 .steps = options.integer("steps", defaults.steps)});
}

Schedule make_cosine(OptionReader& options) {
  return cosine({.steps = options.integer("steps"),
                 .minimum = options.number("minimum", CosineOptions().minimum)});
}

Schedule make_cosine_restarts(OptionReader& options) {
  const CosineRestartsOptions defaults;
  return cosine_restarts({.steps = options.integer("steps"),
                          .multiplier = options.integer("multiplier", defaults.multiplier),
                          .minimum = options.number("minimum", defaults.minimum)});
}

Schedule make_polynomial(OptionReader& options) {
  const PolynomialOptions defaults;
  return polynomial({.steps = options.integer("steps", defaults.steps),
                     .power = options.number("power", defaults.power)});
}

Schedule make_one_cycle(OptionReader& options) {
  const OneCycleOptions defaults;
  return one_cycle(
      {.maximum = options.number("maximum"),
       .steps = options.integer("steps"),
       .rising = options.number("rising", defaults.rising),
       .anneal = anneal(options),
       .div_factor = options.number("div_factor", defaults.div_factor),
       .final_div_factor = options.number("final_div_factor", defaults.final_div_factor),
       .three_phase = options.flag("three_phase", defaults.three_phase)});
}

Schedule make_one_cycle_momentum(OptionReader& options) {
  const OneCycleMomentumOptions defaults;
  return one_cycle_momentum({.minimum = options.number("minimum", defaults.minimum),
                             .maximum = options.number("maximum", defaults.maximum),
                             .steps = options.integer("steps"),
                             .rising = options.number("rising", defaults.rising),
                             .anneal = anneal(options),
                             .three_phase = options.flag("three_phase", defaults.three_phase)});
}

Schedule make_inverse_sqrt(OptionReader& options) {
  return inverse_sqrt({.warm_up = options.integer("warm_up")});
}

Schedule make_on_plateau(OptionReader& options) {
  const OnPlateauOptions defaults;
  return on_plateau(
      {.mode = options.choice<PlateauMode>(
           "mode", {{"min", PlateauMode::min}, {"max", PlateauMode::max}}, defaults.mode),
       .factor = options.number("factor", defaults.factor),
       .patience = options.integer("patience", defaults.patience),
       .threshold = options.number("threshold", defaults.threshold),
       .threshold_mode = options.choice<ThresholdMode>(
           "threshold_mode",
           {{"relative", ThresholdMode::relative}, {"absolute", ThresholdMode::absolute}},
           defaults.threshold_mode),
       .cooldown = options.integer("cooldown", defaults.cooldown),
       .minimum = options.number("minimum", defaults.minimum),
       .eps = options.number("eps", defaults.eps)});
}

using MakeSchedule = Schedule (*)(OptionReader&);
constexpr std::array<std::pair<std::string_view, MakeSchedule>, 12> schedules{
    {{"constant", make_constant},
     {"step", make_step},
     {"multi_step", make_multi_step},
     {"exponential", make_exponential},
     {"linear", make_linear},
     {"cosine", make_cosine},
     {"cosine_restarts", make_cosine_restarts},
     {"polynomial", make_polynomial},
     {"one_cycle", make_one_cycle},
     {"one_cycle_momentum", make_one_cycle_momentum},
     {"inverse_sqrt", make_inverse_sqrt},
     {"on_plateau", make_on_plateau}}};

}  // namespace

Schedule make_schedule(std::string_view name, const StateDict& options) {
  std::string known;
  for (const auto& [known_name, make] : schedules) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", known_name);
    if (known_name != name) continue;
    OptionReader reader(fmt::format("schedule {}", name), options);
    Schedule made = make(reader);
    reader.finish();
    return made;
  }
  throw NameError(fmt::format("there is no schedule '{}'; there are {}", name, known));
}

}  // namespace lockstep::optim
