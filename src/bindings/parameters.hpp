#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bindings/call.hpp"
#include "lockstep/parallel/data_parallel.hpp"

namespace lockstep::bindings {

struct ParametersObject : ObjectOf<ParametersObject> {
  static constexpr std::string_view name = "list of parameters";

  explicit ParametersObject(std::vector<NamedParameter> list = {}) : list(std::move(list)) {}

  /// NameError, which lists those there are, for another name.
  Parameter& at(const char* parameter);

  std::vector<NamedParameter> list;
};

/// A reducer by itself, or that of a replica, which lives as long.
struct ReducerObject : ObjectOf<ReducerObject> {
  static constexpr std::string_view name = "reducer";

  ReducerObject(std::shared_ptr<GradientReducer> reducer, std::vector<NamedParameter> list)
      : reducer(std::move(reducer)), parameters(std::move(list)) {}
  Stateful* state() noexcept override { return reducer.get(); }

  std::shared_ptr<GradientReducer> reducer;
  ParametersObject parameters;
  std::shared_ptr<const void> accumulating;  // where it is
};

/// The options that GradientReducerOptions and DataParallelOptions have in common.
template <class Options>
void read_reduction(OptionReader& reader, Options& options);

}  // namespace lockstep::bindings
