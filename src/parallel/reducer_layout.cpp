#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "comm/calls.hpp"
#include "core/squares.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/logical_replicas.hpp"
#include "lockstep/tensor/memory_pool.hpp"
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

void check_options(const GradientReducerOptions& options, std::int64_t logical_replicas) {
  if (options.bucket_bytes == 0) throw OptionError("expected bucket_bytes ≥ 1, found 0");
  if (!(options.predivide > 0) || !std::isfinite(options.predivide)) {
    throw OptionError(fmt::format("expected a predivide that is finite and positive, found {}",
                                  options.predivide));
  }
  if (options.wire > WireFormat::bf16) {
    throw OptionError(fmt::format("unknown wire format {}", static_cast<int>(options.wire)));
  }
  if (logical_replicas > 0 &&
      (options.wire != WireFormat::full || options.compression != nullptr)) {
    throw OptionError(
        "logical replicas give the same bits on any nodes: expected no compression and the full "
        "wire "
        "format");
  }
  if (!options.keep_gradients && (logical_replicas > 0 || options.compression != nullptr ||
                                  options.missing == MissingGradients::leave_out)) {
    throw OptionError(
        "gradients that are not kept are stepped bucket by bucket: no logical replicas, no "
        "compression, no MissingGradients::leave_out");
  }
}

// All that must be alike on all ranks.
std::string describe(const GradientReducerOptions& options, std::int64_t logical_replicas) {
  const char* const missing[] = {"zero", "leave_out", "error"};
  const char* const wire[] = {"full", "fp16", "bf16"};
  return fmt::format(
      "bucket_bytes = {}, reduction = {}, predivide = {}, missing = {}, wire = {}, compression = "
      "{}, keep_gradients = {}, logical_replicas = {}",
      options.bucket_bytes, options.reduction == GradientReduction::mean ? "mean" : "sum",
      options.predivide, missing[static_cast<std::size_t>(options.missing)],
      wire[static_cast<std::size_t>(options.wire)],
      options.compression == nullptr ? "none" : options.compression->describe(),
      options.keep_gradients, logical_replicas);
}

}  // namespace

GradientReducer::Engine::Engine(std::vector<NamedParameter> parameters,
                                const Communicator& communicator,
                                const GradientReducerOptions& options,
                                std::int64_t logical_replicas)
    : GradientOwner(parameters.size()),
      callers_(communicator),
      communicator_(communicator.duplicate()),
      reduction_ranks_(communicator.duplicate()),
      options_(options),
      parts_{.count = logical_replicas} {
  communicator_.agree([&] {
    check_parameters(parameters);
    check_options(options, logical_replicas);
    check_logical_replicas(logical_replicas, communicator_.size());
  });
  const std::string own = describe(options, logical_replicas);
  std::string root = own;
  communicator_.broadcast(root);
  communicator_.agree([&] {
    if (own == root) return;
    throw OptionError(fmt::format("expected {} as on rank 0, found {}", root, own));
  });
  if (comm::Calls* calls = comm::Calls::of(callers_)) number_ = calls->number_reducer();
  std::vector<TensorSignature> signatures;
  for (const auto& [name, parameter] : parameters) {
    signatures.push_back({name, parameter.dtype(), parameter.shape()});
  }
  hash_ = verify_signatures(communicator_, "parameter", signatures);

  sums_.emplace(parts_, communicator_.rank(), communicator_.size());
  std::reverse(parameters.begin(), parameters.end());
  for (NamedParameter& named : parameters) items_.emplace_back(std::move(named));
  states_.resize(items_.size());
  start_environment_timeline(communicator_);
  const std::vector<Tensor> values = lay_out();
  make_compressors();
  std::vector<std::uint32_t> order(items_.size());
  std::iota(order.begin(), order.end(), 0U);
  make_plan(order);
  order_.reserve(items_.size());
  agreed_.resize(items_.size());
  end_round();
  bind(values);
  memory_pool::give_back();  // where values were
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
      ranges_[i] = {.dtype = dtype,
                    .offset = bytes,
                    .bytes = size,
                    .numbers = static_cast<std::size_t>(value.size())};
      bytes += size;
    }
  }
  if (!options_.keep_gradients && communicator_.size() > 1) {
    ring_.emplace(ranges_, options_.bucket_bytes, most_buckets, communicator_.size());
    bytes = ring_->slots() * ring_->slot_bytes();
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
  bytes = comm::whole_lines(bytes + notes_bytes(items_.size(), most_buckets));
  for (GradientRange& range : ranges_) {
    if (ring_) break;
    range.squares = bytes;
    bytes += squares_blocks(range.bytes) * sizeof(double);
  }
  parts_.slot_bytes = comm::whole_lines(bytes);
  reduction_.emplace(reduction_ranks_, sums_->slots() * parts_.slot_bytes, most_buckets + 1, parts_,
                     options_.wire);
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
    if (!ring_) {
      item.local = at(work_slot());
      item.reduced = at(reduction_->result()).read_only();
    }
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

// For all items, in that order.
void GradientReducer::Engine::make_plan(const std::vector<std::uint32_t>& order) {
  std::vector<std::uint32_t> planned;
  left_out_.clear();
  for (const std::uint32_t item : order) {
    (states_[item].planned ? planned : left_out_).push_back(item);
  }
  buckets_ = ring_ ? ring_->plan(ranges_, planned, left_out_.size(), notes_)
                   : plan_buckets(ranges_, planned, left_out_.size(), options_.bucket_bytes,
                                  most_buckets, notes_);
  bucket_of_.resize(items_.size());
  missing_.resize(buckets_.size());
  launch_times_.resize(buckets_.size());
  for (std::uint32_t b = 0; b < buckets_.size(); ++b) {
    if (!ring_) plan_compression(buckets_[b]);
    if (buckets_[b].slice > 0) continue;
    last_block_ = b;
    for (const std::uint32_t item : buckets_[b].items) bucket_of_[item] = b;
  }
  plan_steps();
}

// From the first round in which rank 0 has computed gradients on, buckets follow the order in which
// it has completed them; what it did not reach comes last. The same again when what is frozen has
// changed.
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
  planned_ = true;
  std::vector<std::uint32_t> wanted(order.begin(), order.end());
  if (wanted != planned_order()) make_plan(wanted);
}

// Of all items, those in buckets first.
std::vector<std::uint32_t> GradientReducer::Engine::planned_order() const {
  std::vector<std::uint32_t> order;
  for (const Bucket& bucket : buckets_) {
    if (bucket.slice == 0) order.insert(order.end(), bucket.items.begin(), bucket.items.end());
  }
  order.insert(order.end(), left_out_.begin(), left_out_.end());
  return order;
}

}  // namespace lockstep
