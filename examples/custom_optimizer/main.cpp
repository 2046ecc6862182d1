// Fits sin(3x) on all ranks, by an update rule that is not in the library.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <lockstep/lockstep.hpp>
#include <string>

#include "adabelief.hpp"

using namespace lockstep;

namespace {

struct Options {
  std::int64_t steps = 2000;
  double lr = 3e-3;
  std::string checkpoint = "run/custom_optimizer.lockstep";
  bool resume = false;
};

void fit(const Options& options, const Communicator& world) {
  nn::Sequential model{nn::Linear(1, 32), nn::Tanh(), nn::Linear(32, 32), nn::Tanh(),
                       nn::Linear(32, 1)};
  model.initialize(1);
  DataParallel replica(model, world);
  NamedOptimizer optimizer(model.named_parameters(), AdaBelief({.lr = options.lr}),
                           {{.params = "*.weight", .name = "weights"},
                            {.params = "*.bias", .lr = 2 * options.lr, .name = "biases"}});
  ExponentialMovingAverage average(model.named_parameters(), {.decay = 0.99});
  optimizer.after_step([&](const auto&, const StepReport&) { average.update(); });

  std::int64_t step = 0;
  Scalars progress({{"step", &step}});
  const std::vector<checkpoint::Item> state{
      {"model", model}, {"optimizer", optimizer}, {"average", average}, {"progress", progress}};
  if (options.resume) checkpoint::load(options.checkpoint, world, state);

  while (step < options.steps) {
    // Each rank draws points of its own.
    const RandomKey key = RandomKey(2)
                              .fold(static_cast<std::uint64_t>(step))
                              .fold(static_cast<std::uint64_t>(world.rank()));
    Tensor x = Tensor::empty({64, 1});
    fill_uniform(x, key, -1, 1);
    Tensor y = x.clone();
    for (float& number : y.span<float>()) number = std::sin(3 * number);

    optimizer.zero_grad();
    const Variable loss = mean_squared_error(model(x), y);
    loss.backward();
    optimizer.step();
    ++step;
    if (step % 500 == 0 && world.rank() == 0) {
      fmt::print("step {:>5}  mean squared error {:.2e}\n", step, loss.value().item());
    }
  }
  world.agree([&] {
    const auto folder = std::filesystem::path(options.checkpoint).parent_path();
    if (!folder.empty()) std::filesystem::create_directories(folder);
  });
  checkpoint::save(options.checkpoint, world, state);
  if (world.rank() == 0) fmt::print("saved {}\n", options.checkpoint);
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  Options options;
  CLI::App app("Fits sin(3x) on all ranks, by an update rule that is not in the library.");
  app.add_option("--steps", options.steps, "Steps in all")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--lr", options.lr, "Learning rate of the weights")->capture_default_str();
  app.add_option("--checkpoint", options.checkpoint, "File that is written, and read by --resume")
      ->capture_default_str();
  app.add_flag("--resume", options.resume, "Go on from the checkpoint");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return mpi.run([&] {
      const Communicator world(MPI_COMM_WORLD);
      return world.rank() == 0 ? app.exit(error) : error.get_exit_code();
    });
  }
  return mpi.run([&] {
    fit(options, Communicator(MPI_COMM_WORLD));
    return 0;
  });
}
