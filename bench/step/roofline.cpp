#include "step/roofline.hpp"

#include <iterator>
#include <lockstep/autograd/operations.hpp>
#include <memory>

#include "optimizer_step/triad.hpp"

namespace bench {

using namespace lockstep;

namespace {

constexpr std::int64_t side_of_best_product = 1024;

// Of all products of a step: those of the forward, of the gradients of weights, and, but for the first layer, of inputs.
double operations(const Network& network) {
  double all = 0;
  const auto add = [&](std::int64_t products) {
    const double forward = 2.0 * static_cast<double>(network.batch * products);
    all += all == 0 ? 2 * forward : 3 * forward;
  };
  if (network.convolutional) {
    std::int64_t side = Network::side;
    for (std::size_t i = 0; i + 1 < std::size(Network::channels); ++i) {
      add(side * side * Network::channels[i] * Network::channels[i + 1] * Network::kernel *
          Network::kernel);
      side /= Network::pool;
    }
  }
  for (std::size_t i = 0; i + 1 < network.widths.size(); ++i) {
    add(network.widths[i] * network.widths[i + 1]);
  }
  return all;
}

// That the step of Adam reads and writes, and each rank of a node its share of the reduction.
double moved_bytes(const Network& network, int ranks) {
  constexpr double arrays_of_adam = 7;
  std::int64_t numbers = 0;
  for (const Parameter& parameter : make_model(network).parameters()) numbers += parameter.size();
  return static_cast<double>(numbers) * static_cast<double>(item_size(network.dtype)) *
         (arrays_of_adam + (ranks + 1.0) / ranks);
}

}  // namespace

SetUp roofline(const Network& network, const Communicator& ranks,
               std::function<std::function<void()>()> set_up_step) {
  return [=, &network, &ranks] {
    const auto step = set_up_step();
    const auto triad = std::make_shared<Triad>(1 << 20);
    const auto side = side_of_best_product;
    const Variable a(Tensor::full({side, side}, 1.0, network.dtype)),
        b(Tensor::full({side, side}, 0.5, network.dtype));
    return [=, &network, &ranks](double seconds) -> Measurement {
      const auto product = [&] {
        const NoGrad none;
        matmul(a, b);
      };
      const std::vector<double> times =
          median_times(ranks, seconds, {step, product, [&] { triad->run(); }});
      const double rate = 2.0 * static_cast<double>(side * side * side) / times[1];
      const double bandwidth = triad->bytes() / times[2];
      const double least =
          operations(network) / rate + moved_bytes(network, ranks.size()) / bandwidth;
      return {1e3 * times[0], 1e3 * least};
    };
  };
}

}  // namespace bench
