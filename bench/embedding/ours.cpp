// Training within the time steps of a solver, beside the solver alone and the time that training is
// given; and inference beside the matrix products in it.

#include <lockstep/comm/environment.hpp>
#include <map>
#include <memory>
#include <string>

#include "embedding/solver.hpp"
#include "embedding/surrogate.hpp"
#include "program.hpp"

using namespace lockstep;

namespace {

constexpr double ms = 1e3;

/// Time steps with cells to show and training for `budget` seconds; of the peer, those of the
/// solver, and the budget.
bench::Case training(const Communicator& ranks, double budget) {
  const auto solver = std::make_shared<Solver>(ranks.handle());
  const auto alone = std::make_shared<Solver>(ranks.handle());
  const auto surrogate = std::make_shared<Surrogate>(ranks.handle());
  return [=, &ranks](double seconds) -> bench::Measurement {
    const auto step = [&] {
      solver->step();
      surrogate->observe(*solver);
      surrogate->trainer().train_for(budget);
    };
    const std::vector<std::vector<double>> times =
        bench::slowest_times(ranks, seconds, {step, [&] { alone->step(); }});
    return {ms * bench::median(times[0]), ms * (bench::median(times[1]) + budget)};
  };
}

/// Inference for so many cells; of the peer, the products of its matrices.
bench::Case predict(std::int64_t cells, std::int64_t width) {
  const auto model = std::make_shared<nn::Sequential>(nn::Linear(width, width), nn::ReLU(),
                                                      nn::Linear(width, width), nn::ReLU(),
                                                      nn::Linear(width, width));
  model->eval();
  Tensor x = Tensor::empty({cells, width});
  fill_normal(x, RandomKey(1), 0, 1);
  return [=](double seconds) -> bench::Measurement {
    const NoGrad no_grad;
    const std::vector<double> times =
        bench::median_times(seconds, {[&] { (*model)(x); },
                                      [&] {
                                        Variable y = x;
                                        for (const Parameter& parameter : model->parameters()) {
                                          if (parameter.shape().rank() == 2)
                                            y = matmul(y, parameter);
                                        }
                                      }});
    return {ms * times[0], ms * times[1]};
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Communicator world(MPI_COMM_WORLD);
    bench::serve(world, {{"train-2ms", [&] { return training(world, 0.002); }},
                         {"train-20ms", [&] { return training(world, 0.020); }},
                         {"predict-64", [] { return predict(10000, 64); }},
                         {"predict-256", [] { return predict(10000, 256); }}});
    return 0;
  });
}
