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

/// Milliseconds of the layer's output for random numbers of that shape, or for indices below `rows`, and of the
/// gradients of its sum by parameters and numbers.
template <class Layer>
bench::SetUp layer(Layer made, Shape input, std::int64_t rows = 0) {
  return [=] {
    auto module = std::make_shared<Layer>(made);
    module->initialize(1);
    Tensor numbers = Tensor::empty(input, rows > 0 ? DType::i64 : DType::f32);
    if (rows > 0) {
      std::uint64_t i = 0;
      for (std::int64_t& index : numbers.span<std::int64_t>()) {
        index =
            static_cast<std::int64_t>(RandomKey(2).below(static_cast<std::uint64_t>(rows), i++));
      }
    } else {
      fill_normal(numbers, RandomKey(2), 0, 1);
    }
    const Variable x(numbers, rows == 0);
    return [=](double seconds) -> bench::Measurement {
      return {1e3 * bench::median_times(seconds, {[&] { sum((*module)(x)).backward(); }})[0]};
    };
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Shape images{16, 64, 28, 28}, rows{512, 1024};
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
        {"dropout", layer(nn::Dropout(0.5), rows)}};
    bench::serve(Communicator(MPI_COMM_WORLD), cases);
    return 0;
  });
}
