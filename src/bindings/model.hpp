#pragma once

#include <functional>
#include <memory>

#include "bindings/parameters.hpp"
#include "lockstep/bindings/model.h"
#include "lockstep/data/dataset.hpp"
#include "lockstep/nn/layers.hpp"

namespace lockstep::bindings {

struct ModelObject : ObjectOf<ModelObject> {
  static constexpr std::string_view name = "model";

  explicit ModelObject(nn::Sequential layers = {})
      : layers(std::make_shared<nn::Sequential>(std::move(layers))) {}
  Stateful* state() noexcept override { return layers.get(); }

  std::shared_ptr<nn::Sequential> layers;
  bool complete = false;  // no layer comes any more, since others know its parameters
};

struct ReplicaObject : ObjectOf<ReplicaObject> {
  static constexpr std::string_view name = "replica";

  ReplicaObject(std::shared_ptr<nn::Sequential> layers, const Communicator& communicator,
                const DataParallelOptions& options)
      : layers(std::move(layers)), parallel(*this->layers, communicator, options) {}

  std::shared_ptr<nn::Sequential> layers;
  DataParallel parallel;
};

using Loss = std::function<Variable(const Variable& outputs, const Tensor& targets)>;
/// OptionError for one without a name that is known, or a function.
Loss loss_of(const lockstep_loss* loss);

/// Computes and reduces the gradients of a replica for a batch that `make` gives; what that throws
/// on one rank, all throw. Returns the mean loss, and in `samples` how many of this rank there
/// were.
double backward(ReplicaObject& replica, const Loss& loss, const std::function<data::Batch()>& make,
                std::int64_t& samples);
/// A batch of the caller's arrays, each of which may be NULL for none.
data::Batch batch_of(const lockstep_array* inputs, const lockstep_array* targets);

}  // namespace lockstep::bindings
