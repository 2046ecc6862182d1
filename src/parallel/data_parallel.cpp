#include "lockstep/parallel/data_parallel.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/part_begin.hpp"
#include "lockstep/core/timeline.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "parallel/batch_statistics.hpp"
#include "parallel/reducer_engine.hpp"
#include "parallel/replica_buffers.hpp"
#include "parallel/verify.hpp"

namespace lockstep {

DataParallel::DataParallel(nn::Module& model, const Communicator& communicator,
                           const DataParallelOptions& options)
    : model_(&model),
      logical_replicas_(options.logical_replicas),
      reducer_(std::make_unique<GradientReducer::Engine>(
          model.named_parameters(), communicator,
          GradientReducerOptions{.bucket_bytes = options.bucket_bytes,
                                 .reduction = options.reduction,
                                 .predivide = options.predivide,
                                 .missing = options.missing,
                                 .wire = options.wire,
                                 .compression = options.compression,
                                 .keep_gradients = options.keep_gradients},
          logical_replicas_)) {
  const Communicator& ranks = reducer_.communicator();
  // Tensors of the dict are the model's own; scalars are copies, which restore() puts back.
  StateDict state = model.state_dict();
  std::vector<TensorSignature> untrained;
  for (const auto& [name, buffer] : model.named_buffers()) {
    untrained.push_back({name, buffer.dtype(), buffer.shape()});
  }
  for (const auto& [name, value] : state) {
    if (std::holds_alternative<Tensor>(value.variant())) continue;
    const auto scalars = static_cast<std::int64_t>(value.as_dict().size());
    untrained.push_back({name, DType::i64, {scalars}});
  }
  verify_signatures(ranks, "buffer or random state", untrained);

  for (auto& [name, value] : state) {
    if (std::holds_alternative<Tensor>(value.variant())) {
      Tensor& tensor = value.as_tensor();
      ranks.broadcast_bytes(tensor.raw(), tensor.bytes());
      continue;
    }
    for (auto& [key, scalar] : value.as_dict()) {
      std::int64_t number = scalar.as_int();
      ranks.broadcast(std::span<std::int64_t>(&number, 1));
      scalar = number;
    }
  }
  model.restore(state);
  model.set_random_stream(static_cast<std::uint64_t>(ranks.rank()));
  synchronise_buffers(options);
}

DataParallel::~DataParallel() { end_statistics(); }
DataParallel::DataParallel(DataParallel&&) noexcept = default;
DataParallel& DataParallel::operator=(DataParallel&& other) noexcept {
  if (this == &other) return *this;
  end_statistics();
  model_ = other.model_;
  logical_replicas_ = other.logical_replicas_;
  reducer_ = std::move(other.reducer_);
  buffers_ = std::move(other.buffers_);
  statistics_ = std::move(other.statistics_);
  return *this;
}

void DataParallel::end_statistics() noexcept {
  if (statistics_ == nullptr) return;
  statistics_->end();
  for (const auto& [name, module] : model_->named_modules()) {
    if (auto* layer = dynamic_cast<nn::BatchNorm*>(module)) layer->set_statistics_reducer(nullptr);
  }
}

namespace {

const char* to_string(std::int64_t policy) {
  const auto value = static_cast<ReplicaBufferPolicy>(policy);
  return value == ReplicaBufferPolicy::average     ? "average"
         : value == ReplicaBufferPolicy::broadcast ? "broadcast"
                                                   : "local";
}

}  // namespace

void DataParallel::check_buffers(const DataParallelOptions& options) const {
  if (options.synchronise_batch_norm && options.buffers == ReplicaBufferPolicy::local) {
    throw OptionError(
        "synchronise_batch_norm with local buffers: a rank without samples would not move them");
  }
  if (logical_replicas_ == 0) return;
  if (options.synchronise_batch_norm) {
    throw OptionError(
        "logical replicas are computed one after the other: there is no synchronise_batch_norm");
  }
  if (options.buffers != ReplicaBufferPolicy::average && !model_->named_buffers().empty()) {
    throw OptionError("with logical replicas, the buffers of a model can only be averaged");
  }
}

void DataParallel::synchronise_buffers(const DataParallelOptions& options) {
  const Communicator& ranks = reducer_.communicator();
  std::array<std::int64_t, 2> own{static_cast<std::int64_t>(options.buffers),
                                  options.synchronise_batch_norm};
  std::array<std::int64_t, 2> root = own;
  ranks.broadcast(std::span<std::int64_t>(root));
  ranks.agree([&] {
    if (own != root) {
      throw OptionError(fmt::format(
          "expected buffers = {} and synchronise_batch_norm = {} as on rank 0, found {} and {}",
          to_string(root[0]), root[1] != 0, to_string(own[0]), own[1] != 0));
    }
    check_buffers(options);
  });
  GradientReducer::Engine& engine = *reducer_.engine_;
  GradientReducer::Engine::RoundHooks hooks;
  std::vector<Tensor> buffers;
  for (auto& [name, buffer] : model_->named_buffers()) buffers.push_back(buffer);
  if (!buffers.empty()) {
    buffers_ = std::make_shared<ReplicaBuffers>(std::move(buffers), options.buffers, ranks,
                                                logical_replicas_);
    hooks.after = [buffers = buffers_](double weight) { buffers->synchronise(weight); };
    hooks.undo = [buffers = buffers_] { buffers->restore(); };
  }
  if (options.synchronise_batch_norm) {
    std::vector<nn::BatchNorm*> layers;
    std::int64_t most_channels = 0;
    for (const auto& [name, module] : model_->named_modules()) {
      auto* layer = dynamic_cast<nn::BatchNorm*>(module);
      if (layer == nullptr) continue;
      layers.push_back(layer);
      most_channels = std::max(most_channels, layer->channels());
    }
    // Where losses come multiplied by their weight, so do their gradients.
    statistics_ = std::make_shared<BatchStatistics>(
        ranks, static_cast<std::size_t>(most_channels),
        [&engine] { return engine.weighted() ? 1 : engine.weight(); });
    for (std::size_t i = 0; i < layers.size(); ++i) {
      layers[i]->set_statistics_reducer(statistics_->reducer(i));
    }
    hooks.before = [statistics = statistics_](bool failed) { return statistics->finish(failed); };
  }
  engine.set_round_hooks(std::move(hooks));
}

Variable DataParallel::operator()(const Variable& x) const {
  const timeline::Span span("forward");
  return model_->forward(x);
}

namespace {

Variable forward(const std::function<Variable(std::int64_t begin, std::int64_t end)>& loss,
                 std::int64_t begin, std::int64_t end) {
  const timeline::Span span("forward");
  return loss(begin, end);
}

}  // namespace

void DataParallel::check_batch(const BatchOptions& options) const {
  if (options.parts < 1) {
    throw OptionError(fmt::format("expected at least one part, found {}", options.parts));
  }
  if (logical_replicas_ > 0 &&
      (options.parts > 1 || options.weight || reducer_.engine_->deferred())) {
    throw OptionError(
        "logical replicas cut a batch themselves and count its samples: expected parts = 1, no "
        "weight, and no no_sync()");
  }
}

double DataParallel::run_batch(std::int64_t samples, const BatchOptions& options,
                               const PartLoss& loss) {
  GradientReducer::Engine& engine = *reducer_.engine_;
  const std::uint64_t round = engine.rounds();
  const bool deferred = engine.deferred();
  const bool logical = logical_replicas_ > 0;
  engine.take_cancellation();
  // Before anything that may fail on one rank alone.
  const std::int64_t global = logical ? reducer_.communicator().all_reduce(samples) : 0;
  double mean = 0;
  try {
    const bool mixes = engine.accumulates() && !engine.weighted();
    const double weight = samples == 0 ? 0 : options.weight.value_or(static_cast<double>(samples));
    // First, since all ranks must count samples in a reduction, or none.
    if (deferred || engine.weighted()) {
      engine.add_weighted(weight);
    } else {
      engine.set_weight(weight);
    }
    if (mixes) {
      throw StateError(
          "a batch, whose samples are counted, adds to gradients that are not reduced yet and "
          "count "
          "none: finish() or discard() comes first");
    }
    check_batch(options);
    engine.set_in_batch(true);
    if (buffers_ != nullptr) buffers_->begin();
    mean = logical ? run_logical_parts(samples, global, loss)
                   : run_pieces(samples, options.parts, weight, loss);
    // Without samples no backward has done that.
    if (!deferred && engine.rounds() == round) reducer_.finish();
    if (deferred && statistics_ != nullptr) statistics_->finish(false);
  } catch (...) {
    std::exception_ptr failure = std::current_exception();
    engine.set_in_batch(false);
    model_->end_random_step();
    if (deferred) {
      // Where another rank's failure has interrupted this one, it is that one that counts.
      const bool interrupted = statistics_ != nullptr && statistics_->finish(true);
      engine.fail_deferred(interrupted ? nullptr : failure);
    } else if (engine.rounds() == round) {
      try {
        engine.cancel(failure);
      } catch (...) {
        failure = std::current_exception();
      }
    } else if (const std::exception_ptr all = engine.take_cancellation()) {
      failure = all;
    }
    if (!deferred) {
      if (engine.accumulates()) engine.discard();
      engine.set_weight(1);
    }
    std::rethrow_exception(failure);
  }
  engine.set_in_batch(false);
  if (!deferred) engine.set_weight(1);
  model_->end_random_step();
  return mean;
}

// Reduces in the course of the last backward.
double DataParallel::run_pieces(std::int64_t samples, std::int64_t pieces, double weight,
                                const PartLoss& loss) {
  GradientReducer::Engine& engine = *reducer_.engine_;
  const double unit = engine.weighted() ? weight / engine.options().predivide : 1;
  double mean = 0;
  std::shared_ptr<const void> deferral = engine.defer();
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = samples * piece / pieces, end = samples * (piece + 1) / pieces;
    if (begin == end) continue;
    if (end == samples) deferral.reset();
    const double share = static_cast<double>(end - begin) / static_cast<double>(samples);
    engine.begin_part(weight * share);
    const Variable value = forward(loss, begin, end);
    const double factor = unit * share;
    (factor == 1 ? value : value * factor).backward();
    mean += share * value.value().item();
  }
  return mean;
}

// Of each part the sum over its samples, so that nothing depends on which rank has it.
double DataParallel::run_logical_parts(std::int64_t samples, std::int64_t global,
                                       const PartLoss& loss) {
  GradientReducer::Engine& engine = *reducer_.engine_;
  const std::int64_t first = engine.parts().begin, last = engine.parts().end;
  const auto bound = [&](std::int64_t part) {
    return part_begin(global, part, logical_replicas_) -
           part_begin(global, first, logical_replicas_);
  };
  if (samples != bound(last)) {
    throw StateError(fmt::format(
        "the logical replicas {} to {} of {} take {} samples of a global batch of {}, found {}: "
        "does the sampler have the same number of logical replicas?",
        first, last - 1, logical_replicas_, bound(last), global, samples));
  }
  double sum = 0;
  std::shared_ptr<const void> deferral = engine.defer();
  for (std::int64_t part = first; part < last; ++part) {
    const std::int64_t begin = bound(part), end = bound(part + 1);
    const auto size = static_cast<double>(end - begin);
    if (part + 1 == last) deferral.reset();
    engine.begin_part(size);
    if (begin < end) {
      model_->begin_random_step(static_cast<std::uint64_t>(part));
      const Variable value = forward(loss, begin, end);
      if (buffers_ != nullptr) buffers_->end_part(size);
      (value * (size / engine.options().predivide)).backward();
      sum += size * value.value().item();
    } else if (buffers_ != nullptr) {
      buffers_->end_part(0);
    }
  }
  return samples == 0 ? 0 : sum / static_cast<double>(samples);
}

}  // namespace lockstep
