#include "lockstep/parallel/data_parallel.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "parallel/verify.hpp"

namespace lockstep {

DataParallel::DataParallel(nn::Module& model, const Communicator& communicator)
    : model_(&model), reducer_(model.named_parameters(), communicator) {
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

double DataParallel::run_parts(
    std::int64_t samples, std::int64_t parts,
    const std::function<Variable(std::int64_t begin, std::int64_t end)>& loss) {
  if (parts < 1) throw OptionError(fmt::format("expected at least one part, found {}", parts));
  double mean = 0;
  reducer_.set_deferred(true);
  try {
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t begin = samples * part / parts, end = samples * (part + 1) / parts;
      if (begin == end) continue;
      const double share = static_cast<double>(end - begin) / static_cast<double>(samples);
      Variable value = loss(begin, end);
      if (share != 1) value = value * share;
      value.backward();
      mean += value.value().item();
    }
  } catch (...) {
    reducer_.set_deferred(false);
    reducer_.discard();
    model_->end_random_step();
    throw;
  }
  reducer_.set_deferred(false);
  model_->end_random_step();
  reducer_.reduce(static_cast<double>(samples));
  return mean;
}

}  // namespace lockstep
