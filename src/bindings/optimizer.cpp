#include "bindings/optimizer.hpp"

#include <fmt/format.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "bindings/parameters.hpp"
#include "bindings/ranks.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/by_name.hpp"
#include "lockstep/optim/lbfgs.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/parallel/sharded_optimizer.hpp"

namespace lockstep::bindings {
namespace {

optim::NonFinite read_non_finite(OptionReader& reader) {
  return reader.choice<optim::NonFinite>("non_finite",
                                         {{"error", optim::NonFinite::error},
                                          {"skip", optim::NonFinite::skip},
                                          {"ignore", optim::NonFinite::ignore}},
                                         optim::NonFinite::error);
}

}  // namespace

StepOptions step_options_of(const lockstep_option* options) {
  OptionReader reader = reader_of("step", options);
  StepOptions chosen{.gradient_scale = reader.number("gradient_scale", 1.0),
                     .allow_none = reader.flag("allow_none", false)};
  if (reader.has("non_finite")) chosen.non_finite = read_non_finite(reader);
  reader.finish();
  return chosen;
}

namespace {

// What is asked of an optimizer or group: which parameters, its name, and the rest, which are
// hyper-parameters.
struct GroupRequest {
  std::vector<std::string> params;
  std::string name;
  StateDict hyper_parameters;

  explicit GroupRequest(StateDict options) {
    OptionReader reader("group", options);
    params = reader.texts("params");
    name = reader.text("name", "");
    options.erase("params");
    options.erase("name");
    hyper_parameters = std::move(options);
  }

  ParamGroupOptions group() const { return {.params = ParameterSelection(params), .name = name}; }
};

ShardedOptimizerOptions take_sharding(StateDict& options) {
  OptionReader reader("sharded optimizer", options);
  const bool shared_replica = reader.flag("shared_replica", false);
  options.erase("shared_replica");
  return {.shared_replica = shared_replica};
}

// Of all parameters, or those that are asked for.
std::vector<ParamGroupOptions> groups_of(const GroupRequest& request,
                                         const std::vector<NamedParameter>& parameters) {
  ParamGroupOptions group{.params = ParameterSelection(parameters), .name = request.name};
  if (!request.params.empty()) group.params = ParameterSelection(request.params);
  return {std::move(group)};
}

std::unique_ptr<KeyedOptimizer> make_lbfgs(const std::vector<NamedParameter>& parameters,
                                           const GroupRequest& request) {
  auto made = std::make_unique<optim::LBFGS>(
      request.params.empty() ? parameters : ParameterSelection(request.params).select(parameters));
  ParamGroup& group = made->param_groups().front();
  group.set(optim::as_typed(group.hyper_parameters(), request.hyper_parameters));
  return made;
}

using MakeRule = std::function<std::unique_ptr<optim::UpdateRule>()>;

void create_optimizer(lockstep_parameters parameters, const MakeRule& make_rule,
                      const lockstep_option* options, lockstep_communicator communicator,
                      lockstep_optimizer* result) {
  std::shared_ptr<ParametersObject> object;
  std::unique_ptr<optim::UpdateRule> rule;
  std::vector<ParamGroupOptions> groups;
  ShardedOptimizerOptions sharding;
  const auto prepare = [&](bool is_sharded) {
    object = get<ParametersObject>(parameters);
    check_pointer(result, "result");
    StateDict named = options_of(options);
    if (is_sharded) sharding = take_sharding(named);
    const GroupRequest request(std::move(named));
    rule = make_rule();
    optim::set_by_name(*rule, request.hyper_parameters);
    groups = groups_of(request, object->list);
  };
  if (communicator == nullptr) {
    prepare(false);
    return create<OptimizerObject>(result,
                                   std::make_unique<NamedOptimizer>(object->list, *rule, groups));
  }
  const Communicator ranks = communicator_of(communicator);
  ranks.agree([&] { prepare(true); });
  create<OptimizerObject>(
      result, std::make_unique<ShardedOptimizer>(object->list, *rule, groups, ranks, sharding));
}

KeyedOptimizer& optimizer_of(const std::shared_ptr<OptimizerObject>& object) {
  return *object->optimizer;
}

std::vector<ParamGroup*> groups_named(KeyedOptimizer& optimizer, const char* group) {
  if (group != nullptr) return {&optimizer.param_group(group)};
  std::vector<ParamGroup*> all;
  for (ParamGroup& one : optimizer.param_groups()) all.push_back(&one);
  return all;
}

void set(KeyedOptimizer& optimizer, const char* group, const lockstep_option* options) {
  const StateDict named = options_of(options);
  std::vector<std::pair<ParamGroup*, StateDict>> before;
  try {
    for (ParamGroup* one : groups_named(optimizer, group)) {
      before.emplace_back(one, one->hyper_parameters().options());
      one->set(optim::as_typed(one->hyper_parameters(), named));
    }
  } catch (...) {
    for (const auto& [changed, values] : before) changed->set(values);
    throw;
  }
}

lockstep_step_report report_of(const StepReport& report) {
  return {report.applied ? 1 : 0, report.empty ? 1 : 0,
          report.gradient_norm.value_or(std::numeric_limits<double>::quiet_NaN())};
}

void check_hook(int returned) {
  if (returned != 0) throw CallbackError(fmt::format("a hook of a step returned {}", returned));
}

lockstep_array slot_of(const KeyedOptimizer& optimizer, const std::string& parameter,
                       const std::string& slot) {
  const StateDict state = optimizer.state_dict();
  const StateDict& all = state.at("state").as_dict();
  const StateValue& found = all.at(parameter).as_dict().at(slot);
  if (const auto* part = std::get_if<TensorPart>(&found.variant())) return array_of(part->numbers);
  return array_of(found.as_tensor());
}

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_optimizer_create(lockstep_parameters parameters, const char* rule,
                                          const lockstep_option* options,
                                          lockstep_optimizer* result) {
  return call([&] {
    const std::string name = text_of(rule, "rule");
    if (name != "LBFGS") {
      return create_optimizer(
          parameters, [&] { return optim::make_rule(name); }, options, nullptr, result);
    }
    const auto object = get<ParametersObject>(parameters);
    check_pointer(result, "result");
    create<OptimizerObject>(result, make_lbfgs(object->list, GroupRequest(options_of(options))));
  });
}

lockstep_status lockstep_optimizer_create_sharded(lockstep_parameters parameters, const char* rule,
                                                  const lockstep_option* options,
                                                  lockstep_communicator communicator,
                                                  lockstep_optimizer* result) {
  return call([&] {
    get<CommunicatorObject>(communicator);
    create_optimizer(
        parameters, [&] { return optim::make_rule(text_of(rule, "rule")); }, options, communicator,
        result);
  });
}

lockstep_status lockstep_optimizer_create_custom(lockstep_parameters parameters,
                                                 const lockstep_rule* rule,
                                                 const lockstep_option* options,
                                                 lockstep_communicator communicator,
                                                 lockstep_optimizer* result) {
  return call([&] {
    create_optimizer(
        parameters, [&] { return custom_rule(rule); }, options, communicator, result);
  });
}

lockstep_status lockstep_optimizer_add_group(lockstep_optimizer optimizer,
                                             const lockstep_option* options) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    ParamGroupOptions group;
    optimizer_of(object).agree([&] {
      const GroupRequest request(options_of(options));
      group = request.group();
      group.fields = optim::as_typed(optimizer_of(object).param_groups().front().hyper_parameters(),
                                     request.hyper_parameters);
    });
    optimizer_of(object).add_param_group(group);
  });
}

lockstep_status lockstep_optimizer_set(lockstep_optimizer optimizer, const char* group,
                                       const lockstep_option* options) {
  return call([&] { set(optimizer_of(get<OptimizerObject>(optimizer)), group, options); });
}

lockstep_status lockstep_optimizer_get(lockstep_optimizer optimizer, const char* group,
                                       const char* field, double* result) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    check_pointer(result, "result");
    const std::string name = text_of(field, "field");
    const ParamGroup& one = *groups_named(optimizer_of(object), group).front();
    StateDict value{{name, one.get(name)}};
    if (const auto* flag = std::get_if<bool>(&value[name].variant())) {
      *result = *flag ? 1 : 0;
    } else {
      *result = OptionReader("hyper-parameters", value).number(name);
    }
  });
}

lockstep_status lockstep_optimizer_clip(lockstep_optimizer optimizer,
                                        const lockstep_option* options) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    if (options == nullptr) return optimizer_of(object).remove_clipping();
    OptionReader reader = reader_of("clipping", options);
    optim::Clipping clipping;
    if (reader.has("value")) clipping.value = reader.number("value");
    if (reader.has("norm")) clipping.norm = reader.number("norm");
    if (reader.has("global_norm")) clipping.global_norm = reader.number("global_norm");
    clipping.norm_type = reader.number("norm_type", clipping.norm_type);
    clipping.non_finite = read_non_finite(reader);
    reader.finish();
    optimizer_of(object).set_clipping(clipping);
  });
}

lockstep_status lockstep_optimizer_step(lockstep_optimizer optimizer,
                                        const lockstep_option* options,
                                        lockstep_step_report* report) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    StepOptions chosen;
    if (options != nullptr) {
      optimizer_of(object).agree([&] { chosen = step_options_of(options); });
    }
    const StepReport made = optimizer_of(object).step(chosen);
    if (report != nullptr) *report = report_of(made);
  });
}

lockstep_status lockstep_optimizer_step_closure(lockstep_optimizer optimizer,
                                                lockstep_closure closure, void* context,
                                                double* loss) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    check_pointer(closure, "closure");
    const double value = optimizer_of(object).step([&]() -> double {
      double computed = 0;
      const int failed = closure(context, &computed);
      if (failed != 0) throw CallbackError(fmt::format("the closure returned {}", failed));
      return computed;
    });
    if (loss != nullptr) *loss = value;
  });
}

lockstep_status lockstep_optimizer_zero_gradients(lockstep_optimizer optimizer) {
  return call([&] { optimizer_of(get<OptimizerObject>(optimizer)).zero_grad(); });
}

lockstep_status lockstep_optimizer_slot(lockstep_optimizer optimizer, const char* parameter,
                                        const char* slot, lockstep_array* result) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    check_pointer(result, "result");
    *result = slot_of(optimizer_of(object), text_of(parameter, "parameter"), text_of(slot, "slot"));
  });
}

lockstep_status lockstep_optimizer_before_step(lockstep_optimizer optimizer,
                                               lockstep_step_hook hook, void* context,
                                               int64_t* number) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    check_pointer(hook, "hook");
    const std::int64_t added = optimizer_of(object).before_step(
        [=](KeyedOptimizer&) { check_hook(hook(context, optimizer, nullptr)); });
    if (number != nullptr) *number = added;
  });
}

lockstep_status lockstep_optimizer_after_step(lockstep_optimizer optimizer, lockstep_step_hook hook,
                                              void* context, int64_t* number) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    check_pointer(hook, "hook");
    const std::int64_t added =
        optimizer_of(object).after_step([=](KeyedOptimizer&, const StepReport& made) {
          const lockstep_step_report report = report_of(made);
          check_hook(hook(context, optimizer, &report));
        });
    if (number != nullptr) *number = added;
  });
}

lockstep_status lockstep_optimizer_remove_hook(lockstep_optimizer optimizer, int64_t number) {
  return call([&] { optimizer_of(get<OptimizerObject>(optimizer)).remove_hook(number); });
}
