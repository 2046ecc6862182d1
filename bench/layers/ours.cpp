// A forward and backward of each layer, on one rank.

#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "program.hpp"

using namespace lockstep;

namespace {

const Shape images{16, 64, 28, 28}, rows{512, 1024};

Tensor drawn_numbers(const Shape& shape) {
  Tensor numbers = Tensor::empty(shape);
  fill_normal(numbers, RandomKey(2), 0, 1);
  return numbers;
}

Tensor drawn_indices(const Shape& shape, std::uint64_t end) {
  Tensor indices = Tensor::empty(shape, DType::i64);
  std::uint64_t i = 0;
  for (std::int64_t& index : indices.span<std::int64_t>()) {
    index = static_cast<std::int64_t>(RandomKey(2).below(end, i++));
  }
  return indices;
}

/// Milliseconds of what that computes of x, and of the gradients of it.
template <class Loss>
bench::Case timed(Loss loss) {
  return [=](double seconds) -> bench::Measurement {
    return {1e3 * bench::median_times(seconds, {[&] { loss().backward(); }})[0]};
  };
}

/// The layer's output for random numbers of that shape, or for indices below `end`, and the gradients of its sum by
/// parameters and numbers.
template <class Layer>
bench::SetUp layer(Layer made, Shape input, std::uint64_t end = 0) {
  return [=] {
    auto module = std::make_shared<Layer>(made);
    module->initialize(1);
    const Variable x(end > 0 ? drawn_indices(input, end) : drawn_numbers(input), end == 0);
    return timed([=] { return sum((*module)(x)); });
  };
}

/// A loss of random numbers by targets from 0 to 1, and its gradient.
bench::SetUp loss(Variable (*of)(const Variable&, const Variable&)) {
  return [of] {
    Tensor target = Tensor::empty(rows);
    fill_uniform(target, RandomKey(3), 0, 1);
    return timed(
        [of, x = Variable(drawn_numbers(rows), true), y = Variable(target)] { return of(x, y); });
  };
}
/// By labels.
bench::SetUp loss(Variable (*of)(const Variable&, const Tensor&)) {
  return [of] {
    return timed([of, x = Variable(drawn_numbers(rows), true),
                  labels = drawn_indices({rows[0]}, 1024)] { return of(x, labels); });
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const std::map<std::string, bench::SetUp> cases{
        {"linear", layer(nn::Linear(512, 512), {256, 512})},
        {"conv1d", layer(nn::Conv1d(32, 64, 5, {.padding = 2}), {32, 32, 256})},
        {"conv2d", layer(nn::Conv2d(64, 64, 3, {.padding = 1}), images)},
        {"conv2d-stride", layer(nn::Conv2d(64, 128, 3, {.stride = 2, .padding = 1}), images)},
        {"conv2d-depthwise", layer(nn::Conv2d(64, 64, 3, {.padding = 1, .groups = 64}), images)},
        {"conv2d-dilated", layer(nn::Conv2d(64, 64, 3, {.padding = 2, .dilation = 2}), images)},
        {"conv2d-1x1", layer(nn::Conv2d(64, 64, 1), images)},
        {"conv3d", layer(nn::Conv3d(8, 16, 3, {.padding = 1}), {4, 8, 16, 16, 16})},
        {"conv_transpose2d",
         layer(nn::ConvTranspose2d(64, 32, 4, {.stride = 2, .padding = 1}), {16, 64, 14, 14})},
        {"residual", layer(nn::Residual(nn::Sequential(
                               nn::Conv2d(64, 64, 3, {.padding = 1}), nn::BatchNorm(64), nn::ReLU(),
                               nn::Conv2d(64, 64, 3, {.padding = 1}), nn::BatchNorm(64))),
                           images)},
        {"max_pool2d", layer(nn::MaxPool2d(2), images)},
        {"max_pool2d-overlapping", layer(nn::MaxPool2d(3, {.stride = 2, .padding = 1}), images)},
        {"avg_pool2d", layer(nn::AvgPool2d(2), images)},
        {"batch_norm", layer(nn::BatchNorm(64), images)},
        {"group_norm", layer(nn::GroupNorm(8, 64), images)},
        {"layer_norm", layer(nn::LayerNorm(1024), rows)},
        {"embedding", layer(nn::Embedding(10'000, 64), {64, 128}, 10'000)},
        {"lstm", layer(nn::LSTM(64, 128), {32, 32, 64})},
        {"gru", layer(nn::GRU(64, 128), {32, 32, 64})},
        {"attention", layer(nn::MultiheadAttention(128, 4), {8, 128, 128})},
        {"transformer",
         layer(nn::TransformerEncoderLayer(128, 4, {.feedforward = 512, .dropout = 0}),
               {8, 128, 128})},
        {"tanh", layer(nn::Tanh(), rows)},
        {"sigmoid", layer(nn::Sigmoid(), rows)},
        {"gelu", layer(nn::GELU(), rows)},
        {"silu", layer(nn::SiLU(), rows)},
        {"softplus", layer(nn::Softplus(), rows)},
        {"elu", layer(nn::ELU(), rows)},
        {"leaky_relu", layer(nn::LeakyReLU(), rows)},
        {"relu", layer(nn::ReLU(), rows)},
        {"softmax", layer(nn::Softmax(), rows)},
        {"dropout", layer(nn::Dropout(0.5), rows)},
        {"mean_squared_error", loss(mean_squared_error)},
        {"l1_loss", loss(l1_loss)},
        {"huber_loss", loss([](const Variable& x, const Variable& y) { return huber_loss(x, y); })},
        {"kl_divergence", loss(kl_divergence)},
        {"nll_loss", loss(nll_loss)},
        {"cross_entropy", loss(cross_entropy)},
        {"binary_cross_entropy", loss(binary_cross_entropy)}};
    bench::serve(Communicator(MPI_COMM_WORLD), cases);
    return 0;
  });
}
