#pragma once

#include <memory>
#include <string_view>

#include "lockstep/optim/schedule.hpp"
#include "lockstep/optim/update_rule.hpp"

#pragma GCC visibility push(default)

// Update rules and schedules by name, for programs that read them from a file or are written in
// another language.
namespace lockstep::optim {

/// The update rule of that name(), such as "Adam", with some of its hyper-parameters. NameError for
/// another name, or a hyper-parameter that it has not; OptionError for a value that is out of range
/// or of another type, where a whole number is one of any type that has it.
std::unique_ptr<UpdateRule> make_rule(std::string_view name,
                                      const StateDict& hyper_parameters = {});

/// Sets hyper-parameters with the errors of make_rule(); throws, or sets them all.
void set_by_name(HyperParameters& target, const StateDict& hyper_parameters);
/// Hyper-parameters as ParamGroup::set() wants them: each of the type that it has in `like`. The
/// same errors, but for values out of range.
StateDict as_typed(const HyperParameters& like, const StateDict& hyper_parameters);

/// A schedule by the name of the function in lockstep::optim::schedule that makes it, with its
/// options by name, of those that do not take another schedule or a function: "constant", "step",
/// "multi_step" (with a list of "milestones"), "exponential", "linear", "cosine",
/// "cosine_restarts", "polynomial", "one_cycle", "one_cycle_momentum", "inverse_sqrt",
/// "on_plateau". Where C++ has an enumerator an option is its name. NameError for another name;
/// OptionError for options that are unknown or out of range.
Schedule make_schedule(std::string_view name, const StateDict& options = {});

}  // namespace lockstep::optim

#pragma GCC visibility pop
