// Goes on with training what PyTorch has begun, on all ranks, and exports it again.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <string>

using namespace lockstep;

namespace {

struct Options {
  std::int64_t steps = 20;
  std::string data = "data.safetensors";
  std::string from, to;
};

void go_on(const Options& options, const Communicator& world) {
  nn::Sequential model{nn::Linear(4, 16), nn::Tanh(), nn::Linear(16, 16), nn::Tanh(),
                       nn::Linear(16, 2)};
  DataParallel replica(model, world);
  NamedOptimizer optimizer(model.named_parameters(), optim::Adam());
  StateDict samples;
  world.agree([&] {
    checkpoint::import_safetensors(options.from, model, &optimizer);
    samples = checkpoint::read_safetensors(options.data).tensors;
  });

  // Each rank takes its part of the samples.
  const data::Batch all{samples.at("x").as_tensor(), samples.at("y").as_tensor()};
  const data::Batch batch = all.slice(all.size() * world.rank() / world.size(),
                                      all.size() * (world.rank() + 1) / world.size());
  for (std::int64_t step = 0; step < options.steps; ++step) {
    optimizer.zero_grad();
    const double loss = replica.backward(batch, [&](const data::Batch& part) {
      return mean_squared_error(model(part.inputs), part.targets);
    });
    optimizer.step();
    const double sum = world.all_reduce(loss * static_cast<double>(batch.size()));
    if (world.rank() == 0) fmt::print("{:.9g}\n", sum / static_cast<double>(all.size()));
  }
  world.agree([&] {
    if (world.rank() == 0) checkpoint::export_safetensors(options.to, model, &optimizer);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  Options options;
  CLI::App app("Goes on with training what PyTorch has begun, and prints the loss of each step.");
  app.add_option("--steps", options.steps, "Steps to make")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--data", options.data, "What to train on")->capture_default_str();
  app.add_option("--from", options.from, "Model and optimizer to go on with")->required();
  app.add_option("--to", options.to, "File to export them to")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return mpi.run([&] {
      const Communicator world(MPI_COMM_WORLD);
      return world.rank() == 0 ? app.exit(error) : error.get_exit_code();
    });
  }
  return mpi.run([&] {
    go_on(options, Communicator(MPI_COMM_WORLD));
    return 0;
  });
}
