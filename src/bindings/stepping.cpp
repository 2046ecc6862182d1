#include <fmt/format.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "bindings/optimizer.hpp"
#include "bindings/parameters.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/step_in_backward.hpp"
#include "lockstep/parallel/step_in_reduction.hpp"

namespace lockstep::bindings {
namespace {

struct SteppingObject : ObjectOf<SteppingObject> {
  static constexpr std::string_view name = "stepping";

  SteppingObject(std::shared_ptr<OptimizerObject> stepped, const StepOptions& options)
      : optimizer(std::move(stepped)) {
    in_backward.emplace(StepInBackward::Optimizers{*optimizer->optimizer}, options);
  }
  SteppingObject(std::shared_ptr<OptimizerObject> stepped, std::shared_ptr<ReducerObject> reducing,
                 ShardedOptimizer& shards, const StepOptions& options)
      : optimizer(std::move(stepped)), reducer(std::move(reducing)) {
    in_reduction.emplace(*reducer->reducer, shards, options);
  }

  std::shared_ptr<OptimizerObject> optimizer;
  std::shared_ptr<ReducerObject> reducer;
  std::optional<StepInBackward> in_backward;
  std::optional<StepInReduction> in_reduction;
};

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_optimizer_combine(int64_t count, const char* const* names,
                                           const lockstep_optimizer* optimizers,
                                           lockstep_optimizer* result) {
  return call([&] {
    if (count < 1) {
      throw OptionError(fmt::format("expected at least one optimizer, found {}", count));
    }
    check_pointer(names, "names");
    check_pointer(optimizers, "optimizers");
    check_pointer(result, "result");
    std::vector<std::shared_ptr<OptimizerObject>> objects;
    CombinedOptimizer::Members members;
    for (std::int64_t i = 0; i < count; ++i) {
      objects.push_back(get<OptimizerObject>(optimizers[i]));
      members.emplace_back(text_of(names[i], "names"), *objects.back()->optimizer);
    }
    auto combined =
        std::make_shared<OptimizerObject>(std::make_unique<CombinedOptimizer>(std::move(members)));
    combined->members = std::move(objects);
    *result = static_cast<lockstep_optimizer>(add_handle(std::move(combined)));
  });
}

lockstep_status lockstep_stepping_create(lockstep_optimizer optimizer, lockstep_reducer reducer,
                                         const lockstep_option* options,
                                         lockstep_stepping* result) {
  return call([&] {
    const auto object = get<OptimizerObject>(optimizer);
    if (reducer == nullptr) {
      return create<SteppingObject>(result, object, step_options_of(options));
    }
    const auto reducing = get<ReducerObject>(reducer);
    StepOptions chosen;
    ShardedOptimizer* shards = nullptr;
    reducing->reducer->communicator().agree([&] {
      check_pointer(result, "result");
      chosen = step_options_of(options);
      shards = dynamic_cast<ShardedOptimizer*>(object->optimizer.get());
      if (shards == nullptr) throw OptionError("steps in a reduction need a sharded optimizer");
    });
    create<SteppingObject>(result, object, reducing, *shards, chosen);
  });
}
