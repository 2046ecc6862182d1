#include "lockstep/parallel/data_parallel.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <exception>
#include <span>
#include <variant>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/part_begin.hpp"
#include "lockstep/core/timeline.hpp"
#include "parallel/reducer_engine.hpp"
#include "parallel/verify.hpp"

namespace lockstep {

DataParallel::DataParallel(nn::Module& model, const Communicator& communicator,
                           const DataParallelOptions& options)
    : model_(&model),
      logical_replicas_(options.logical_replicas),
      reducer_(std::make_unique<GradientReducer::Engine>(
          model.named_parameters(), communicator,
          GradientReducerOptions{.bucket_bytes = options.bucket_bytes}, logical_replicas_)) {
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

double DataParallel::run_parts(std::int64_t samples, std::int64_t parts, const PartLoss& loss) {
  GradientReducer::Engine& engine = *reducer_.engine_;
  const std::uint64_t round = engine.rounds();
  engine.take_cancellation();
  // Before anything that may fail on one rank alone.
  const std::int64_t global =
      logical_replicas_ == 0 ? 0 : reducer_.communicator().all_reduce(samples);
  double mean = 0;
  try {
    if (parts < 1) throw OptionError(fmt::format("expected at least one part, found {}", parts));
    if (parts > 1 && logical_replicas_ > 0) {
      throw OptionError(fmt::format(
          "expected parts = 1 with logical replicas, which cut a batch themselves, found {}",
          parts));
    }
    reducer_.set_weight(static_cast<double>(samples));
    mean = logical_replicas_ == 0 ? run_pieces(samples, parts, loss)
                                  : run_logical_parts(samples, global, loss);
    reducer_.set_deferred(false);
    // Without samples no backward has done that.
    if (engine.rounds() == round) reducer_.finish();
  } catch (...) {
    std::exception_ptr failure = std::current_exception();
    reducer_.set_deferred(false);
    engine.set_in_parts(false);
    model_->end_random_step();
    if (engine.rounds() == round) {
      try {
        engine.cancel(failure);
      } catch (...) {
        failure = std::current_exception();
      }
    } else if (const std::exception_ptr all = engine.take_cancellation()) {
      failure = all;
    }
    engine.set_weight(1);
    std::rethrow_exception(failure);
  }
  engine.set_in_parts(false);
  reducer_.set_weight(1);
  model_->end_random_step();
  return mean;
}

// Reduces in the course of the last backward.
double DataParallel::run_pieces(std::int64_t samples, std::int64_t pieces, const PartLoss& loss) {
  double mean = 0;
  reducer_.set_deferred(true);
  for (std::int64_t piece = 0; piece < pieces; ++piece) {
    const std::int64_t begin = samples * piece / pieces, end = samples * (piece + 1) / pieces;
    if (begin == end) continue;
    if (end == samples) reducer_.set_deferred(false);
    const double share = static_cast<double>(end - begin) / static_cast<double>(samples);
    Variable value = forward(loss, begin, end);
    if (share != 1) value = value * share;
    value.backward();
    mean += value.value().item();
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
  reducer_.set_deferred(true);
  engine.set_in_parts(true);
  for (std::int64_t part = first; part < last; ++part) {
    const std::int64_t begin = bound(part), end = bound(part + 1);
    if (part + 1 == last) reducer_.set_deferred(false);
    if (begin < end) {
      model_->begin_random_step(static_cast<std::uint64_t>(part));
      const Variable value = forward(loss, begin, end) * static_cast<double>(end - begin);
      value.backward();
      sum += value.value().item();
    }
    if (part + 1 < last) engine.end_part();
  }
  return samples == 0 ? 0 : sum / static_cast<double>(samples);
}

}  // namespace lockstep
