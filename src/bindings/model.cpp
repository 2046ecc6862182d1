#include "bindings/model.hpp"

#include <fmt/format.h>

#include <cstring>
#include <exception>
#include <span>
#include <utility>

#include "bindings/ranks.hpp"
#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/model_file.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep::bindings {
namespace {

// The caller's loss as an operation: it has computed its gradient together with its value.
Variable caller_loss(const lockstep_loss& loss, const Variable& outputs, const Tensor& targets) {
  const lockstep_array output_array = array_of(outputs.value());
  const lockstep_array target_array = array_of(targets);
  Tensor gradient = Tensor::zeros(outputs.shape(), outputs.dtype());
  double value = 0;
  const int failed =
      loss.function(loss.context, &output_array, &target_array, gradient.raw(), &value);
  if (failed != 0) throw CallbackError(fmt::format("the loss function returned {}", failed));
  return autograd::record(
      Tensor::full({}, value, outputs.dtype()), {outputs},
      [gradient](const Tensor& upstream, std::span<autograd::GradientSlot> inputs) {
        const double factor = upstream.item();
        inputs[0].receive([&](Tensor& target, bool accumulate) {
          dispatch_floating(target.dtype(), [&]<class T>() {
            const std::span<const T> from = std::as_const(gradient).span<T>();
            const std::span<T> to = target.span<T>();
            for (std::size_t i = 0; i < to.size(); ++i) {
              to[i] = static_cast<T>(factor) * from[i] + (accumulate ? to[i] : T{0});
            }
          });
        });
      });
}

// A batch that could not be made: it has a sample, whose loss is what went wrong.
struct TriedBatch {
  data::Batch batch;
  std::exception_ptr error = nullptr;

  std::int64_t size() const { return error != nullptr ? 1 : batch.size(); }
  TriedBatch slice(std::int64_t begin, std::int64_t end) const {
    return error != nullptr ? *this : TriedBatch{batch.slice(begin, end)};
  }
};

}  // namespace

Loss loss_of(const lockstep_loss* loss) {
  const lockstep_loss chosen = *check_pointer(loss, "loss");
  if (chosen.name == nullptr) {
    check_pointer(chosen.function, "loss.function");
    return [chosen](const Variable& outputs, const Tensor& targets) {
      return caller_loss(chosen, outputs, targets);
    };
  }
  const std::string_view name = chosen.name;
  if (name == "mean_squared_error") {
    return [](const Variable& outputs, const Tensor& targets) {
      return mean_squared_error(outputs, targets);
    };
  }
  if (name == "cross_entropy") {
    return [](const Variable& outputs, const Tensor& targets) {
      return cross_entropy(outputs, targets);
    };
  }
  throw OptionError(
      fmt::format("expected a loss mean_squared_error or cross_entropy, found {}", name));
}

double backward(ReplicaObject& replica, const Loss& loss, const std::function<data::Batch()>& make,
                std::int64_t& samples) {
  TriedBatch tried;
  try {
    tried.batch = make();
  } catch (...) {
    tried.error = std::current_exception();
  }
  samples = tried.size();
  return replica.parallel.backward(tried, [&](const TriedBatch& part) {
    if (part.error != nullptr) std::rethrow_exception(part.error);
    return loss(replica.parallel(part.batch.inputs), part.batch.targets);
  });
}

data::Batch batch_of(const lockstep_array* inputs, const lockstep_array* targets) {
  if (inputs == nullptr && targets == nullptr) return {};
  data::Batch batch{input_of(inputs, "inputs"), input_of(targets, "targets")};
  for (const Tensor* one : {&batch.inputs, &batch.targets}) {
    if (one->shape().rank() > 0 && one->shape()[0] == batch.inputs.shape()[0]) continue;
    throw ShapeError(
        fmt::format("expected inputs and targets of as many samples, found shapes {} and {}",
                    to_string(batch.inputs.shape()), to_string(batch.targets.shape())));
  }
  return batch;
}

namespace {

void predict(nn::Sequential& layers, const lockstep_array* inputs, const lockstep_array* outputs) {
  const Tensor x = input_of(inputs, "inputs");
  Tensor y = tensor_of(outputs, "outputs");
  const bool was_training = layers.training();
  if (was_training) layers.eval();
  struct Restore {
    nn::Sequential& layers;
    bool training;
    ~Restore() {
      if (training) layers.train();
    }
  } const restore{layers, was_training};
  const NoGrad no_grad;
  const Variable result = layers(x);
  check_same(result.value(), y, "array 'outputs'");
  if (y.bytes() > 0) std::memcpy(y.raw(), result.value().raw(), y.bytes());
}

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_model_create(lockstep_model* result) {
  return call([&] { create<ModelObject>(result); });
}

lockstep_status lockstep_model_read(const char* path, lockstep_model* result) {
  return call([&] { create<ModelObject>(result, nn::read_model(text_of(path, "path"))); });
}

lockstep_status lockstep_model_add(lockstep_model model, const char* type,
                                   const lockstep_option* options) {
  return call([&] {
    const auto object = get<ModelObject>(model);
    if (object->complete) {
      throw StateError("a layer for a model whose parameters or replica are in use already");
    }
    object->layers->append(nn::make_layer(text_of(type, "type"), options_of(options)));
  });
}

lockstep_status lockstep_model_initialize(lockstep_model model, uint64_t seed) {
  return call([&] { get<ModelObject>(model)->layers->initialize(seed); });
}

lockstep_status lockstep_model_parameters(lockstep_model model, lockstep_parameters* result) {
  return call([&] {
    const auto object = get<ModelObject>(model);
    create<ParametersObject>(result, object->layers->named_parameters());
    object->complete = true;
  });
}

lockstep_status lockstep_model_predict(lockstep_model model, const lockstep_array* inputs,
                                       const lockstep_array* outputs) {
  return call([&] { predict(*get<ModelObject>(model)->layers, inputs, outputs); });
}

lockstep_status lockstep_replica_create(lockstep_model model, lockstep_communicator communicator,
                                        const lockstep_option* options, lockstep_replica* result) {
  return call([&] {
    const Communicator ranks = communicator_of(communicator);
    std::shared_ptr<ModelObject> object;
    DataParallelOptions chosen;
    ranks.agree([&] {
      object = get<ModelObject>(model);
      check_pointer(result, "result");
      OptionReader reader = reader_of("replica", options);
      read_reduction(reader, chosen);
      chosen.buffers =
          reader.choice<ReplicaBufferPolicy>("buffers",
                                             {{"average", ReplicaBufferPolicy::average},
                                              {"broadcast", ReplicaBufferPolicy::broadcast},
                                              {"local", ReplicaBufferPolicy::local}},
                                             chosen.buffers);
      chosen.synchronise_batch_norm = reader.flag("synchronise_batch_norm", false);
      chosen.logical_replicas = reader.integer("logical_replicas", 0);
      reader.finish();
    });
    create<ReplicaObject>(result, object->layers, ranks, chosen);
    object->complete = true;
  });
}

lockstep_status lockstep_replica_reducer(lockstep_replica replica, lockstep_reducer* result) {
  return call([&] {
    const auto object = get<ReplicaObject>(replica);
    create<ReducerObject>(result,
                          std::shared_ptr<GradientReducer>(object, &object->parallel.reducer()),
                          object->layers->named_parameters());
  });
}

lockstep_status lockstep_replica_backward(lockstep_replica replica, const lockstep_array* inputs,
                                          const lockstep_array* targets, const lockstep_loss* loss,
                                          double* mean_loss) {
  return call([&] {
    const auto object = get<ReplicaObject>(replica);
    Loss chosen;
    std::int64_t samples = 0;
    const double mean = backward(
        *object, [&](const Variable& y, const Tensor& t) { return chosen(y, t); },
        [&] {
          chosen = loss_of(loss);
          return batch_of(inputs, targets);
        },
        samples);
    if (mean_loss != nullptr) *mean_loss = mean;
  });
}
