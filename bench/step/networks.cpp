#include "step/networks.hpp"

#include <iterator>
#include <lockstep/autograd/losses.hpp>
#include <lockstep/autograd/operations.hpp>
#include <lockstep/optim/adam.hpp>
#include <lockstep/optim/sgd.hpp>
#include <lockstep/tensor/random.hpp>

namespace bench {

using namespace lockstep;

namespace {

std::vector<Network> in_both_types(std::vector<Network> all) {
  for (std::size_t i = 0, count = all.size(); i < count; ++i) {
    Network network = all[i];
    network.name += "-f64";
    network.dtype = DType::f64;
    all.push_back(network);
  }
  return all;
}

}  // namespace

const std::vector<Network>& networks() {
  static const std::vector<Network> all = in_both_types(
      {{.name = "seed",
        .widths = {8, 16, 32, 64, 8},
        .batch = 5,
        .classifies = false,
        .adam = false},
       {.name = "surrogate",
        .widths = {32, 128, 128, 16},
        .batch = 64,
        .tanh = true,
        .classifies = false},
       {.name = "mnist", .widths = {784, 512, 512, 10}, .batch = 64},
       {.name = "large", .widths = {1024, 2048, 2048, 2048, 10}, .batch = 256},
       {.name = "cnn", .widths = {7 * 7 * 64, 128, 10}, .batch = 64, .convolutional = true}});
  return all;
}

nn::Sequential make_model(const Network& network) {
  nn::Sequential model;
  if (network.convolutional) {
    for (std::size_t i = 0; i + 1 < std::size(Network::channels); ++i) {
      model.append(nn::Conv2d(Network::channels[i], Network::channels[i + 1], Network::kernel,
                              {.padding = Network::kernel / 2, .dtype = network.dtype}));
      model.append(nn::ReLU());
      model.append(nn::MaxPool2d(Network::pool));
    }
    model.append(nn::Flatten());
  }
  for (std::size_t i = 0; i + 1 < network.widths.size(); ++i) {
    if (i > 0 && network.tanh) model.append(nn::Tanh());
    if (i > 0 && !network.tanh) model.append(nn::ReLU());
    model.append(nn::Linear(network.widths[i], network.widths[i + 1], {.dtype = network.dtype}));
  }
  model.initialize(1);
  return model;
}

std::unique_ptr<optim::UpdateRule> make_rule(const Network& network) {
  if (network.adam) return std::make_unique<optim::Adam>(optim::AdamOptions{.lr = network.lr});
  return std::make_unique<optim::SGD>(
      optim::SGDOptions{.lr = network.lr, .momentum = network.momentum});
}

NamedOptimizer make_optimizer(const Network& network, const nn::Module& model) {
  return {model.named_parameters(), *make_rule(network)};
}

Variable loss(const Network& network, nn::Module& model, const data::Batch& batch) {
  const Variable outputs = model(batch.inputs);
  return network.classifies ? cross_entropy(outputs, batch.targets)
                            : mean_squared_error(outputs, batch.targets);
}

Batches::Batches(const Network& network, int rank) : batches_(16) {
  const RandomKey key = RandomKey(2).fold(static_cast<std::uint64_t>(rank));
  const Shape shape = network.convolutional
                          ? Shape{network.batch, Network::channels[0], Network::side, Network::side}
                          : Shape{network.batch, network.widths.front()};
  const std::int64_t outputs = network.widths.back();
  std::uint64_t number = 0;
  for (auto& [inputs, targets] : batches_) {
    inputs = Tensor::empty(shape, network.dtype);
    fill_normal(inputs, key.fold(number++), 0, 1);
    const RandomKey target = key.fold(number++);
    if (!network.classifies) {
      targets = Tensor::empty({network.batch, outputs}, network.dtype);
      fill_normal(targets, target, 0, 1);
      continue;
    }
    targets = Tensor::empty({network.batch}, DType::i64);
    std::uint64_t row = 0;
    for (std::int64_t& label : targets.span<std::int64_t>()) {
      label = static_cast<std::int64_t>(target.below(static_cast<std::uint64_t>(outputs), row++));
    }
  }
}

}  // namespace bench
