#include "lockstep/parallel/gradient_reducer.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <set>
#include <utility>

#include "lockstep/core/error.hpp"
#include "parallel/verify.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

// Item i of the layout is the parameter that was i-th from the end of the list: the order in which
// a backward completes gradients.
class GradientReducer::Engine : public autograd::GradientOwner {
 public:
  Engine(std::vector<NamedParameter> parameters, const Communicator& communicator);
  ~Engine() override;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  bool open(std::size_t index) override;
  void complete(std::size_t) override {}
  void finish() override {
    if (!deferred_) reduce(1.0);
  }
  void abandon() noexcept override;

  void reduce(double weight);

  const Communicator& communicator() const noexcept { return communicator_; }
  void set_deferred(bool deferred) noexcept { deferred_ = deferred; }

 private:
  struct Item {
    Parameter parameter;
    std::int64_t offset = 0;  // in the buffers of its dtype
    bool stashed = false;     // the gradient of before lies in `earlier`
  };
  struct Buffers {
    std::int64_t size = 0;
    Tensor values, gradients;
    Tensor earlier;  // made when a backward first adds to a reduced gradient
  };

  Buffers& buffers(DType dtype) { return buffers_[dtype == DType::f32 ? 0 : 1]; }
  Tensor window(const Item& item, Tensor Buffers::*buffer) {
    const Tensor& value = item.parameter.value();
    return (buffers(value.dtype()).*buffer).window(item.offset, value.shape());
  }
  void stash(Item& item);
  void drop_zeroed() noexcept;
  double agree_on_used(double weight, double& share);
  template <class T>
  void reduce_runs(Buffers& buffers, double weight, double factor);
  void settle(Item& item);

  Communicator communicator_;
  std::vector<Item> items_;
  std::array<Buffers, 2> buffers_;
  std::vector<std::uint8_t> used_;       // which items have a gradient that is not reduced yet
  std::vector<std::uint8_t> used_here_;  // the same on this rank alone, while reducing
  bool deferred_ = false;
};

namespace {

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
                                const Communicator& communicator)
    : GradientOwner(parameters.size()), communicator_(communicator.duplicate()) {
  communicator_.agree([&] { check_parameters(parameters); });
  std::vector<TensorSignature> signatures;
  for (const auto& [name, parameter] : parameters) {
    signatures.push_back({name, parameter.dtype(), parameter.shape()});
  }
  verify_signatures(communicator_, "parameter", signatures);

  std::reverse(parameters.begin(), parameters.end());
  for (const NamedParameter& named : parameters) {
    Buffers& target = buffers(named.parameter.dtype());
    items_.push_back({.parameter = named.parameter, .offset = target.size});
    target.size += named.parameter.value().padded_size();
  }
  communicator_.agree([&] {
    for (const DType dtype : {DType::f32, DType::f64}) {
      Buffers& target = buffers(dtype);
      target.values = Tensor::zeros({target.size}, dtype);
      target.gradients = Tensor::zeros({target.size}, dtype);
    }
  });
  used_.resize(items_.size());
  for (std::size_t i = 0; i < items_.size(); ++i) {
    Parameter& parameter = items_[i].parameter;
    parameter.rebind(
        parameter.value().borrowed() ? parameter.value() : window(items_[i], &Buffers::values),
        window(items_[i], &Buffers::gradients), this, i);
  }
}

GradientReducer::Engine::~Engine() {
  for (Item& item : items_) {
    const Tensor& value = item.parameter.value();
    item.parameter.rebind(value.borrowed() ? value : value.clone(),
                          Tensor::empty(value.shape(), value.dtype()), nullptr, 0);
  }
}

void GradientReducer::Engine::stash(Item& item) {
  if (!item.parameter.has_grad()) return;
  Buffers& target = buffers(item.parameter.dtype());
  if (!target.earlier.defined()) {
    target.earlier = Tensor::zeros({target.size}, item.parameter.dtype());
  }
  window(item, &Buffers::earlier).copy_from(item.parameter.grad());
  item.stashed = true;
}

bool GradientReducer::Engine::open(std::size_t index) {
  Item& item = items_[index];
  if (used_[index] && item.parameter.has_grad()) return true;
  item.stashed = false;  // zero_grad() has forgotten that too
  stash(item);
  used_[index] = 1;
  return false;
}

// Leaves out what zero_grad() has forgotten since its last backward.
void GradientReducer::Engine::drop_zeroed() noexcept {
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!used_[i] || items_[i].parameter.has_grad()) continue;
    used_[i] = 0;
    items_[i].stashed = false;
  }
}

void GradientReducer::Engine::abandon() noexcept {
  drop_zeroed();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!std::exchange(used_[i], std::uint8_t{0})) continue;
    Item& item = items_[i];
    item.parameter.set_has_grad(item.stashed);
    if (std::exchange(item.stashed, false)) {
      item.parameter.mutable_grad().copy_from(window(item, &Buffers::earlier));
    }
  }
}

// Makes used_ the same on all ranks; returns what to divide the sum of gradients by, and sets
// `share` to what to multiply the own ones with before.
double GradientReducer::Engine::agree_on_used(double weight, double& share) {
  // A hash tells in one small message whether all ranks used the same parameters with the same
  // weight.
  const std::uint64_t hash =
      XXH3_64bits_withSeed(used_.data(), used_.size(), std::bit_cast<std::uint64_t>(weight));
  const auto fingerprint = static_cast<std::int64_t>(hash >> 2);
  std::array<std::int64_t, 2> range{fingerprint, -fingerprint};
  communicator_.all_reduce(std::span<std::int64_t>(range), ReduceOp::max);
  share = 1;
  double total = communicator_.size();
  const bool valid = std::isfinite(weight) && weight >= 0;
  if (range[0] == -range[1] && valid && weight > 0) return total;

  communicator_.agree([&] {
    if (!valid) {
      throw OptionError(
          fmt::format("expected a weight that is finite and not negative, found {}", weight));
    }
  });
  communicator_.all_reduce(std::span<std::uint8_t>(used_), ReduceOp::max);
  total = communicator_.all_reduce(weight);
  const bool anything = std::find(used_.begin(), used_.end(), 1) != used_.end();
  if (anything && total == 0) {
    used_ = used_here_;
    OptionError error("the weights of all ranks are zero: there is nothing to average");
    error.set_collective(true);
    throw error;
  }
  share = weight;
  return total;
}

template <class T>
void GradientReducer::Engine::reduce_runs(Buffers& target, double share, double total) {
  T* gradients = target.gradients.data<T>();
  std::int64_t begin = 0, end = 0;
  const auto flush = [&] {
    if (begin == end) return;
    if (share != 1) kernels::scale(end - begin, static_cast<T>(share), gradients + begin);
    communicator_.all_reduce(
        std::span<T>(gradients + begin, static_cast<std::size_t>(end - begin)));
    kernels::scale(end - begin, static_cast<T>(1 / total), gradients + begin);
  };
  bool previous_used = false;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const Item& item = items_[i];
    if (item.parameter.dtype() != dtype_of<T>) continue;
    if (used_[i]) {
      if (!previous_used) {
        flush();
        begin = item.offset;
      }
      end = item.offset + item.parameter.size();
    }
    previous_used = used_[i] != 0;
  }
  flush();
}

// The gradient of an item that some rank used is now: what was there before, plus the mean.
void GradientReducer::Engine::settle(Item& item) {
  item.parameter.set_has_grad(true);
  if (!std::exchange(item.stashed, false)) return;
  Tensor& gradient = item.parameter.mutable_grad();
  const Tensor earlier = window(item, &Buffers::earlier);
  dispatch_floating(gradient.dtype(), [&]<class T>() {
    kernels::add_scaled(gradient.size(), T{1}, earlier.data<T>(), gradient.data<T>());
  });
}

void GradientReducer::Engine::reduce(double weight) {
  drop_zeroed();
  used_here_ = used_;
  double share = 1;
  const double total = agree_on_used(weight, share);
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!used_[i] || used_here_[i]) continue;
    stash(items_[i]);
    window(items_[i], &Buffers::gradients).fill(0);
  }
  reduce_runs<float>(buffers_[0], share, total);
  reduce_runs<double>(buffers_[1], share, total);
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (used_[i]) settle(items_[i]);
  }
  const std::vector<std::uint8_t> final =
      std::exchange(used_, std::vector<std::uint8_t>(used_.size()));
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (final[i]) items_[i].parameter.run_final_hooks();
  }
}

GradientReducer::GradientReducer(std::vector<NamedParameter> parameters,
                                 const Communicator& communicator)
    : engine_(std::make_unique<Engine>(std::move(parameters), communicator)) {}
GradientReducer::~GradientReducer() = default;
GradientReducer::GradientReducer(GradientReducer&&) noexcept = default;
GradientReducer& GradientReducer::operator=(GradientReducer&&) noexcept = default;

const Communicator& GradientReducer::communicator() const noexcept {
  return engine_->communicator();
}

void GradientReducer::set_deferred(bool deferred) noexcept { engine_->set_deferred(deferred); }

void GradientReducer::reduce(double weight) { engine_->reduce(weight); }

void GradientReducer::discard() noexcept { engine_->abandon(); }

}  // namespace lockstep
