#include "lockstep/parallel/parameter_averager.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

#include "comm/drift.hpp"
#include "lockstep/core/error.hpp"
#include "optim/collect_parameters.hpp"
#include "parallel/verify.hpp"
#include "state/state_hashes.hpp"

namespace lockstep {
namespace {

constexpr std::size_t most_buffer_bytes = std::size_t{1} << 20;

// Replaces the numbers of those tensors that are of type T by their means over all ranks.
template <class T>
void average_type(const Communicator& communicator, const std::vector<Tensor>& tensors,
                  std::optional<SharedBuffer<T>>& buffer) {
  std::size_t left = 0;
  for (const Tensor& tensor : tensors) {
    if (tensor.dtype() == dtype_of<T>) left += static_cast<std::size_t>(tensor.size());
  }
  if (left == 0) return;
  if (!buffer) buffer.emplace(communicator, std::min(left, most_buffer_bytes / sizeof(T)));
  std::size_t filled = 0;
  std::vector<std::span<T>> parts;  // where the numbers in the buffer are from
  for (Tensor tensor : tensors) {
    if (tensor.dtype() != dtype_of<T>) continue;
    for (std::span<T> rest = tensor.span<T>(); !rest.empty();) {
      const std::span<T> part = rest.first(std::min(rest.size(), buffer->size() - filled));
      std::copy(part.begin(), part.end(),
                buffer->values().begin() + static_cast<std::ptrdiff_t>(filled));
      parts.push_back(part);
      filled += part.size();
      left -= part.size();
      rest = rest.subspan(part.size());
      if (filled < buffer->size() && left > 0) continue;
      buffer->all_reduce(ReduceOp::mean);
      const T* mean = buffer->result().data();
      for (const std::span<T> done : parts) {
        std::copy_n(mean, done.size(), done.data());
        mean += done.size();
      }
      parts.clear();
      filled = 0;
    }
  }
}

}  // namespace

ParameterAverager::ParameterAverager(const std::vector<NamedParameter>& parameters,
                                     const Communicator& communicator,
                                     const ParameterAveragerOptions& options)
    : communicator_(communicator), options_(options) {
  std::vector<TensorSignature> signatures;
  communicator_.agree([&] {
    const auto require = [](bool holds, const char* expected, std::int64_t found) {
      if (holds) return;
      throw OptionError(fmt::format("parameter averager: expected {}, found {}", expected, found));
    };
    require(options.every >= 1, "every >= 1", options.every);
    require(options.warmup_steps >= 0, "warmup_steps >= 0", options.warmup_steps);
    parameters_ = optim::collect_parameters(parameters, "parameter averager").parameters;
    for (const auto& [name, parameter] : parameters_) {
      signatures.push_back({name, parameter.dtype(), parameter.shape()});
    }
  });
  const std::string difference = comm::find_drift(
      communicator_, {{"every", static_cast<std::uint64_t>(options.every)},
                      {"warmup_steps", static_cast<std::uint64_t>(options.warmup_steps)}});
  if (!difference.empty()) {
    throw_collective({ErrorKind::option,
                      fmt::format("the ranks average parameters differently: {}", difference)});
  }
  verify_signatures(communicator_, "parameter", signatures);
  for (NamedParameter& named : parameters_) {
    Tensor& value = named.parameter.mutable_value();
    communicator_.broadcast_bytes(value.raw(), value.bytes());
  }
}

ParameterAverager::ParameterAverager(const nn::Module& model, const Communicator& communicator,
                                     const ParameterAveragerOptions& options)
    : ParameterAverager(model.named_parameters(), communicator, options) {
  std::vector<TensorSignature> signatures;
  for (const auto& [name, buffer] : model.named_buffers()) {
    signatures.push_back({name, buffer.dtype(), buffer.shape()});
    buffers_.push_back(buffer);
  }
  verify_signatures(communicator_, "buffer", signatures);
  for (Tensor& buffer : buffers_) communicator_.broadcast_bytes(buffer.raw(), buffer.bytes());
}

void ParameterAverager::advance(KeyedOptimizer* optimizer) {
  const std::int64_t local = steps_ + 1 - options_.warmup_steps;
  if (local <= 0 || local % options_.every == 0) average_with(optimizer);
  ++steps_;
}

void ParameterAverager::average_with(KeyedOptimizer* optimizer) {
  std::vector<Tensor> tensors;
  for (NamedParameter& named : parameters_) tensors.push_back(named.parameter.mutable_value());
  if (optimizer != nullptr) {
    std::vector<NamedHash> entries;
    communicator_.agree([&] {
      const FlatState state = flatten(optimizer->state_dict());
      std::vector<std::uint64_t> checksums;
      for (const Tensor& tensor : state.tensors) {
        checksums.push_back(is_floating(tensor.dtype()) ? 0 : checksum(tensor));
      }
      entries = hash_entries(state, checksums);
      tensors.insert(tensors.end(), state.tensors.begin(), state.tensors.end());
    });
    const std::string difference = comm::find_drift(communicator_, entries);
    if (!difference.empty()) {
      throw_collective(
          {ErrorKind::state,
           fmt::format("the optimizers of the ranks cannot be averaged: {}", difference)});
    }
  }
  for (Tensor& buffer : buffers_) {
    if (is_floating(buffer.dtype())) {
      tensors.push_back(buffer);
    } else if (buffer.dtype() == DType::i64) {
      communicator_.all_reduce(buffer.span<std::int64_t>(), ReduceOp::max);
    } else {
      communicator_.all_reduce(buffer.span<std::uint8_t>(), ReduceOp::max);
    }
  }
  average_type(communicator_, tensors, floats_);
  average_type(communicator_, tensors, doubles_);
  ++rounds_;
}

StateDict ParameterAverager::state_dict() const { return {{"steps", steps_}, {"rounds", rounds_}}; }

void ParameterAverager::check_restore(const StateDict& source) const {
  for (const char* key : {"steps", "rounds"}) {
    const std::int64_t found = source.at(key).as_int();
    if (found < 0) {
      throw StateError(
          fmt::format("state of a parameter averager: expected {} >= 0, found {}", key, found));
    }
  }
}

void ParameterAverager::restore(const StateDict& source) {
  check_restore(source);
  steps_ = source.at("steps").as_int();
  rounds_ = source.at("rounds").as_int();
}

}  // namespace lockstep
