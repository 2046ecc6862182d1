#include "bindings/parameters.hpp"

#include <fmt/format.h>

#include <utility>

#include "bindings/ranks.hpp"
#include "lockstep/bindings/parameters.h"
#include "lockstep/core/checked_cast.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/parallel/compression.hpp"

namespace lockstep::bindings {

Parameter& ParametersObject::at(const char* parameter) {
  const std::string wanted = text_of(parameter, "name");
  std::string known;
  for (NamedParameter& one : list) {
    if (one.name == wanted) return one.parameter;
    if (known.size() < 200) known += (known.empty() ? "" : ", ") + one.name;
  }
  throw NameError(fmt::format("there is no parameter '{}' among the {} of this list: {}", wanted,
                              list.size(), known.empty() ? "none" : known));
}

namespace {

void add(lockstep_parameters parameters, const char* name, const lockstep_array* array,
         bool borrows) {
  auto& list = get<ParametersObject>(parameters)->list;
  const std::string wanted = text_of(name, "name");
  for (const NamedParameter& one : list) {
    if (one.name == wanted) {
      throw NameError(fmt::format("there is a parameter '{}' in this list already", wanted));
    }
  }
  const Tensor value = tensor_of(array, name);
  if (!is_floating(value.dtype())) {
    throw DTypeError(fmt::format("parameter '{}': expected dtype f32 or f64, found {}", wanted,
                                 to_string(value.dtype())));
  }
  list.emplace_back(wanted, Parameter(wanted, borrows ? value : value.clone()));
}

std::shared_ptr<const GradientCompression> read_compression(OptionReader& reader) {
  const std::string kind = reader.text("compression", "none");
  if (kind == "none") return nullptr;
  if (kind == "top_k") {
    TopK::Options options;
    options.fraction = reader.number("fraction", options.fraction);
    options.least_size = reader.integer("least_size", options.least_size);
    return std::make_shared<TopK>(options);
  }
  if (kind == "power_sgd") {
    PowerSgd::Options options;
    options.rank = reader.integer("rank", options.rank);
    options.least_factor = reader.number("least_factor", options.least_factor);
    return std::make_shared<PowerSgd>(options);
  }
  throw OptionError(
      fmt::format("option 'compression': expected one of none, top_k, power_sgd, found {}", kind));
}

}  // namespace

template <class Options>
void read_reduction(OptionReader& reader, Options& options) {
  options.bucket_bytes = checked_cast<std::size_t>(
      reader.integer("bucket_bytes", static_cast<std::int64_t>(options.bucket_bytes)),
      "option 'bucket_bytes'");
  options.reduction = reader.choice<GradientReduction>(
      "reduction", {{"mean", GradientReduction::mean}, {"sum", GradientReduction::sum}},
      options.reduction);
  options.predivide = reader.number("predivide", options.predivide);
  options.missing = reader.choice<MissingGradients>("missing",
                                                    {{"zero", MissingGradients::zero},
                                                     {"leave_out", MissingGradients::leave_out},
                                                     {"error", MissingGradients::error}},
                                                    options.missing);
  options.wire = reader.choice<WireFormat>(
      "wire", {{"full", WireFormat::full}, {"fp16", WireFormat::fp16}, {"bf16", WireFormat::bf16}},
      options.wire);
  options.compression = read_compression(reader);
  options.keep_gradients = reader.flag("keep_gradients", options.keep_gradients);
}

template void read_reduction(OptionReader&, GradientReducerOptions&);
template void read_reduction(OptionReader&, DataParallelOptions&);

}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_parameters_create(lockstep_parameters* result) {
  return call([&] { create<ParametersObject>(result); });
}

lockstep_status lockstep_parameters_borrow(lockstep_parameters parameters, const char* name,
                                           const lockstep_array* array) {
  return call([&] { add(parameters, name, array, true); });
}

lockstep_status lockstep_parameters_add(lockstep_parameters parameters, const char* name,
                                        const lockstep_array* array) {
  return call([&] { add(parameters, name, array, false); });
}

lockstep_status lockstep_parameters_count(lockstep_parameters parameters, int64_t* result) {
  return call([&] {
    const auto count = get<ParametersObject>(parameters)->list.size();
    *check_pointer(result, "result") = static_cast<std::int64_t>(count);
  });
}

lockstep_status lockstep_parameters_name(lockstep_parameters parameters, int64_t index,
                                         const char** result) {
  return call([&] {
    const auto& list = get<ParametersObject>(parameters)->list;
    check_pointer(result, "result");
    if (index < 0 || index >= static_cast<std::int64_t>(list.size())) {
      throw OptionError(
          fmt::format("expected the index of one of {} parameters, found {}", list.size(), index));
    }
    *result = list[static_cast<std::size_t>(index)].name.c_str();
  });
}

lockstep_status lockstep_parameters_value(lockstep_parameters parameters, const char* name,
                                          lockstep_array* result) {
  return call([&] {
    const auto object = get<ParametersObject>(parameters);
    *check_pointer(result, "result") = array_of(object->at(name).mutable_value());
  });
}

lockstep_status lockstep_parameters_gradient(lockstep_parameters parameters, const char* name,
                                             lockstep_array* result) {
  return call([&] {
    const auto object = get<ParametersObject>(parameters);
    check_pointer(result, "result");
    *result = array_of(object->at(name).mutable_grad());
  });
}

lockstep_status lockstep_parameters_read_gradient(lockstep_parameters parameters, const char* name,
                                                  lockstep_array* result) {
  return call([&] {
    const auto object = get<ParametersObject>(parameters);
    *check_pointer(result, "result") = array_of(object->at(name).grad());
  });
}

lockstep_status lockstep_parameters_has_gradient(lockstep_parameters parameters, const char* name,
                                                 int* result) {
  return call([&] {
    const auto object = get<ParametersObject>(parameters);
    *check_pointer(result, "result") = object->at(name).has_grad() ? 1 : 0;
  });
}

lockstep_status lockstep_parameters_zero_gradients(lockstep_parameters parameters) {
  return call([&] {
    for (NamedParameter& one : get<ParametersObject>(parameters)->list) one.parameter.zero_grad();
  });
}

lockstep_status lockstep_parameters_set_requires_gradient(lockstep_parameters parameters,
                                                          const char* name, int requires_gradient) {
  return call([&] {
    get<ParametersObject>(parameters)->at(name).set_requires_grad(requires_gradient != 0);
  });
}

lockstep_status lockstep_reducer_create(lockstep_parameters parameters,
                                        lockstep_communicator communicator,
                                        const lockstep_option* options, lockstep_reducer* result) {
  return call([&] {
    const Communicator ranks = communicator_of(communicator);
    GradientReducerOptions chosen;
    std::shared_ptr<ParametersObject> object;
    ranks.agree([&] {
      object = get<ParametersObject>(parameters);
      check_pointer(result, "result");
      OptionReader reader = reader_of("reducer", options);
      read_reduction(reader, chosen);
      reader.finish();
    });
    create<ReducerObject>(result, std::make_shared<GradientReducer>(object->list, ranks, chosen),
                          object->list);
  });
}

lockstep_status lockstep_reducer_set_weight(lockstep_reducer reducer, double weight) {
  return call([&] { get<ReducerObject>(reducer)->reducer->set_weight(weight); });
}

lockstep_status lockstep_reducer_mark_ready(lockstep_reducer reducer, const char* name) {
  return call([&] {
    const auto object = get<ReducerObject>(reducer);
    object->reducer->mark_ready(object->parameters.at(name));
  });
}

lockstep_status lockstep_reducer_finish(lockstep_reducer reducer) {
  return call([&] { get<ReducerObject>(reducer)->reducer->finish(); });
}

lockstep_status lockstep_reducer_set_accumulating(lockstep_reducer reducer, int accumulating) {
  return call([&] {
    const auto object = get<ReducerObject>(reducer);
    if (accumulating == 0) return object->accumulating.reset();
    if (object->accumulating == nullptr) object->accumulating = object->reducer->no_sync();
  });
}

lockstep_status lockstep_reducer_discard(lockstep_reducer reducer) {
  return call([&] { get<ReducerObject>(reducer)->reducer->discard(); });
}

lockstep_status lockstep_reducer_waited(lockstep_reducer reducer, double* result) {
  return call([&] {
    const auto object = get<ReducerObject>(reducer);
    *check_pointer(result, "result") = object->reducer->waited();
  });
}
