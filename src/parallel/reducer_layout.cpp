#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/core/logical_replicas.hpp"
#include "parallel/environment_timeline.hpp"
#include "parallel/reducer_engine.hpp"
#include "parallel/verify.hpp"

namespace lockstep {
namespace {

// More would fill the announcements of the ranks without letting anything begin sooner.
constexpr std::size_t most_buckets = 500;

void check_parameters(const std::vector<NamedParameter>& parameters) {
  if (parameters.empty()) throw OptionError("there are no parameters to reduce");
  std::set<std::string> names;
  std::set<const void*> identities;
  for (const auto& [name, parameter] : parameters) {
    if (!names.insert(name).second) {
      throw NameError(fmt::format("two parameters are called '{}'", name));
    }
    if (!identities.insert(parameter.identity()).second) {
      throw NameError(fmt::format("parameter '{}' appears under another name as well", name));
    }
    if (parameter.gradient_owner() != nullptr) {
      throw StateError(
          fmt::format("parameter '{}' already belongs to a DataParallel or GradientReducer", name));
    }
  }
}

}  // namespace

GradientReducer::Engine::Engine(std::vector<NamedParameter> parameters,
                                const Communicator& communicator,
                                const GradientReducerOptions& options,
                                std::int64_t logical_replicas)
    : GradientOwner(parameters.size()),
      communicator_(communicator.duplicate()),
      reduction_ranks_(communicator.duplicate()),
      options_(options),
      parts_{.count = logical_replicas} {
  communicator_.agree([&] {
    check_parameters(parameters);
    if (options.bucket_bytes == 0) throw OptionError("expected bucket_bytes ≥ 1, found 0");
    check_logical_replicas(logical_replicas, communicator_.size());
  });
  const std::array<std::int64_t, 2> own{static_cast<std::int64_t>(options.bucket_bytes),
                                        logical_replicas};
  std::array<std::int64_t, 2> root = own;
  communicator_.broadcast(std::span<std::int64_t>(root));
  communicator_.agree([&] {
    if (own == root) return;
    throw OptionError(
        fmt::format("expected bucket_bytes = {} and logical_replicas = {} as on rank 0, found {} "
                    "and {}",
                    root[0], root[1], own[0], own[1]));
  });
  std::vector<TensorSignature> signatures;
  for (const auto& [name, parameter] : parameters) {
    signatures.push_back({name, parameter.dtype(), parameter.shape()});
  }
  hash_ = verify_signatures(communicator_, "parameter", signatures);

  std::reverse(parameters.begin(), parameters.end());
  for (NamedParameter& named : parameters) items_.emplace_back(named.parameter);
  states_.resize(items_.size());
  start_environment_timeline(communicator_);
  const std::vector<Tensor> values = lay_out();
  std::vector<std::uint32_t> order(items_.size());
  std::iota(order.begin(), order.end(), 0U);
  make_plan(order);
  order_.reserve(items_.size());
  reached_.resize(items_.size());
  for (std::int64_t end = parts().begin; end <= parts().end; ++end) {
    sums_.push_back(comm::subtrees_of(parts().begin, end));
  }
  bind(values);
}

// Finds places for values, in memory of this rank, which it returns, and for gradients, in that of
// the node: those of one dtype after the other.
std::vector<Tensor> GradientReducer::Engine::lay_out() {
  ranges_.resize(items_.size());
  std::size_t bytes = 0;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (std::size_t i = 0; i < items_.size(); ++i) {
      const Tensor& value = items_[i].parameter.value();
      if (value.dtype() != dtype) continue;
      const std::size_t size = static_cast<std::size_t>(value.padded_size()) * item_size(dtype);
      ranges_[i] = {.dtype = dtype, .offset = bytes, .bytes = size};
      bytes += size;
    }
  }
  notes_ = bytes;
  std::vector<Tensor> values(2);
  communicator_.agree([&] {
    for (const DType dtype : {DType::f32, DType::f64}) {
      std::int64_t size = 0;
      for (const Item& item : items_) {
        if (item.parameter.dtype() == dtype) size += item.parameter.value().padded_size();
      }
      values[dtype == DType::f32 ? 0 : 1] = Tensor::zeros({size}, dtype);
    }
  });
  parts_.slot_bytes = comm::whole_lines(bytes + notes_bytes(items_.size(), most_buckets));
  reduction_.emplace(reduction_ranks_, slots() * parts_.slot_bytes, most_buckets + 1, parts_);
  return values;
}

// The parameters are this reducer's from here on.
void GradientReducer::Engine::bind(const std::vector<Tensor>& values) {
  std::vector<std::int64_t> used(2);
  for (std::size_t i = 0; i < items_.size(); ++i) {
    Item& item = items_[i];
    const Tensor& value = item.parameter.value();
    const std::size_t kind = value.dtype() == DType::f32 ? 0 : 1;
    const auto at = [&](std::byte* memory) {
      return Tensor::of(reduction_->memory(), memory + ranges_[i].offset, value.shape(),
                        value.dtype());
    };
    item.local = at(slot(work_slot_));
    item.reduced = at(reduction_->result()).read_only();
    Tensor place = values[kind].window(used[kind], value.shape());
    used[kind] += value.padded_size();
    item.parameter.rebind(value.borrowed() ? value : std::move(place), item.local, this, i,
                          item.reduced);
  }
}

GradientReducer::Engine::~Engine() {
  for (Item& item : items_) {
    const Tensor& value = item.parameter.value();
    item.parameter.rebind(value.borrowed() ? value : value.clone(),
                          Tensor::empty(value.shape(), value.dtype()), nullptr, 0);
  }
}

void GradientReducer::Engine::make_plan(const std::vector<std::uint32_t>& order) {
  buckets_ = plan_buckets(ranges_, order, options_.bucket_bytes, most_buckets, notes_);
  bucket_of_.resize(items_.size());
  missing_.resize(buckets_.size());
  launch_times_.resize(buckets_.size());
  for (std::uint32_t b = 0; b < buckets_.size(); ++b) {
    for (const std::uint32_t item : buckets_[b].items) bucket_of_[item] = b;
  }
  end_round();
}

// From the first round in which rank 0 has computed gradients on, buckets follow the order in which
// it has completed them; what it did not reach comes last.
void GradientReducer::Engine::agree_on_plan() {
  std::int64_t count = std::ssize(order_);
  communicator_.broadcast(std::span(&count, 1));
  if (count == 0) return;
  std::vector<std::int64_t> order(items_.size());
  if (communicator_.rank() == 0) {
    std::vector<bool> known(items_.size());
    std::size_t size = 0;
    for (const std::uint32_t item : order_) {
      known[item] = true;
      order[size++] = item;
    }
    for (std::size_t item = 0; item < items_.size(); ++item) {
      if (!known[item]) order[size++] = static_cast<std::int64_t>(item);
    }
  }
  communicator_.broadcast(std::span(order));
  make_plan(std::vector<std::uint32_t>(order.begin(), order.end()));
  planned_ = true;
}

// How many arrays like all gradients this rank needs, and which of them a backward writes to.
std::size_t GradientReducer::Engine::slots() {
  if (parts_.count == 0) return 1;
  const auto [begin, end] = parts();
  if (end - begin == 1) return 1;
  // Those of subtrees, as many as there are at a time, and one to compute in.
  for (std::int64_t last = begin + 1; last <= end; ++last) {
    work_slot_ = std::max(work_slot_, comm::subtrees_of(begin, last).size());
  }
  return work_slot_ + 1;
}

}  // namespace lockstep
