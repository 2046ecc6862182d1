// A program outside the project: one step on eight samples, and the loss after it.
#include <cstdio>
#include <lockstep/lockstep.hpp>
#include <vector>

using namespace lockstep;

namespace {

int train_one_step() {
  Communicator world(MPI_COMM_WORLD);
  Tensor inputs = Tensor::empty({8, 4}), targets = Tensor::empty({8, 1});
  fill_normal(inputs, RandomKey(1), 0, 1);
  fill_normal(targets, RandomKey(2), 0, 1);
  const data::TensorDataset samples(inputs, targets);

  nn::Sequential model{nn::Linear(4, 16), nn::Tanh(), nn::Linear(16, 1)};
  model.initialize(3);
  DataParallel replica(model, world);
  NamedOptimizer optimizer(model.named_parameters(), optim::Adam({.lr = 0.01}));
  data::DataLoader loader(samples, data::DistributedSampler(8, 8, world.rank(), world.size(), {}));
  for (const data::Batch& batch : loader) {
    optimizer.zero_grad();
    replica.backward(batch, [&](const data::Batch& part) {
      return mean_squared_error(model(part.inputs), part.targets);
    });
    optimizer.step();
  }

  const NoGrad no_grad;
  const double loss = mean_squared_error(model(inputs), targets).value().item();
  if (world.rank() == 0) std::printf("%d ranks: loss %.5f\n", world.size(), loss);
  world.close();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run(train_one_step);
}
