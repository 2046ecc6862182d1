// One training step, and what has to come before it.

#include <lockstep/lockstep.hpp>

using namespace lockstep;

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Communicator world(MPI_COMM_WORLD);
    nn::Sequential model{nn::Linear(8, 8)};
    model.initialize(1);
    DataParallel replica(model, world);
    NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 0.1}));
    const data::Batch batch{.inputs = Tensor::full({5, 8}, 1), .targets = {}};
    replica.backward(batch, [&](const data::Batch& part) { return sum(model(part.inputs)); });
    optimizer.step();
    return 0;
  });
}
