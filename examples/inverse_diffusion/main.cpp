// Finds the conductivity of a diffusion solver by its own adjoint, on all ranks.

#include <fmt/format.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <lockstep/lockstep.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gradient_check.hpp"
#include "inversion.hpp"
#include "options.hpp"
#include "picture.hpp"

using namespace lockstep;

namespace {

std::unique_ptr<KeyedOptimizer> make_optimizer(const Options& options, const Parameter& parameter) {
  if (options.optimizer == "adam") {
    return std::make_unique<NamedOptimizer>(std::vector<NamedParameter>{parameter},
                                            optim::Adam({.lr = options.lr.value_or(0.1)}));
  }
  return std::make_unique<optim::LBFGS>(
      std::vector<NamedParameter>{parameter},
      optim::LBFGSOptions{
          .lr = options.lr.value_or(1), .max_iter = 5, .history_size = 20, .strong_wolfe = true});
}

int check(const Options& options, const Communicator& world) {
  Inversion inversion(options, world);
  const GradientCheck check = check_gradient(inversion, options.seed);
  if (world.rank() == 0) {
    fmt::print("gradient and central differences differ by at most {:.1e}, in {} cells\n",
               check.difference, check.cells);
  }
  return 0;
}

int run(const Options& options, const Communicator& world) {
  const bool reports = world.rank() == 0;
  const auto checkpoints_path = options.out / "checkpoints";
  const auto metrics_path = options.out / "metrics.jsonl";
  const auto picture_path = options.out / "picture.svg";
  world.agree([&] {
    if (reports && options.resume && !std::filesystem::exists(checkpoints_path)) {
      throw OptionError(fmt::format("--resume: there is no '{}'", checkpoints_path.string()));
    }
  });

  Inversion inversion(options, world);
  const double first_error = inversion.error();
  const auto optimizer = make_optimizer(options, inversion.parameter());

  std::int64_t step = 0, evaluations = 0;
  const std::string asked = fmt::format(
      "--cells {} --experiments {} --noise {} --seed {} --regularisation {}", options.cells,
      options.experiments, options.noise, options.seed, options.regularisation);
  std::string problem = asked;
  NamedTensors field({{"log_conductivity", inversion.parameter().mutable_value()}});
  Scalars progress({{"step", &step}, {"evaluations", &evaluations}, {"problem", &problem}});
  CheckpointManager checkpoints(
      checkpoints_path, world,
      {{"field", field}, {"optimizer", *optimizer}, {"progress", progress}},
      {.every_minutes = 5, .keep_last = 2, .signals = {SIGINT, SIGTERM, SIGUSR1}});
  if (!options.resume && checkpoints.newest()) {
    throw_collective({ErrorKind::option,
                      fmt::format("'{}' exists: pass --resume to go on with it, or another --out",
                                  checkpoints.path(*checkpoints.newest()))});
  }
  checkpoints.load_latest();
  if (problem != asked) {
    throw_collective({ErrorKind::option, fmt::format("--resume: the run in '{}' has {}, not {}",
                                                     options.out.string(), problem, asked)});
  }
  if (options.lr) optimizer->param_groups()[0].set_lr(*options.lr);

  std::optional<train::MetricsLog> metrics;
  world.agree([&] {
    if (!reports) return;
    metrics.emplace(metrics_path,
                    options.resume ? train::MetricsMode::resume : train::MetricsMode::create);
    metrics->keep_until("step", static_cast<double>(step - 1));
  });
  if (reports) {
    fmt::print("{0}x{0} cells, {1} experiment{2} over {3} rank{4}, {5}, seed {6}{7}\n",
               options.cells, options.experiments, options.experiments == 1 ? "" : "s",
               world.size(), world.size() == 1 ? "" : "s", options.optimizer, options.seed,
               options.resume ? fmt::format(", resumed after step {}", step) : "");
  }

  const std::int64_t steps = options.steps.value_or(options.optimizer == "adam" ? 300 : 20);
  train::Progress bar("inversion", steps, {.enabled = reports, .unit = "steps", .initial = step});
  const auto report = [&](const Objective& objective) {  // after `step` steps
    if (!reports) return;
    const double error = inversion.error();
    bar.update(step, fmt::format("misfit {:.4g}, error {:.1f} %", objective.misfit, 100 * error));
    metrics->append({{"step", step},
                     {"evaluations", evaluations},
                     {"loss", objective.value},
                     {"misfit", objective.misfit},
                     {"roughness", objective.roughness},
                     {"error", error}});
  };
  while (step < steps && !checkpoints.stop_requested()) {
    bool first = true;
    optimizer->step([&] {
      const Objective objective = inversion.evaluate();
      if (first) report(objective);
      first = false;
      ++evaluations;
      return objective.value;
    });
    checkpoints.step(++step);
  }
  if (checkpoints.stop_requested()) {
    bar.finish();
    if (reports) fmt::print("stopped after step {}: go on with --resume\n", step);
    return 0;
  }
  checkpoints.save(step);
  const Objective found = inversion.evaluate();
  report(found);
  bar.finish();
  world.agree([&] {
    if (reports) draw_picture(picture_path, metrics_path, inversion, options.experiments);
  });
  if (!reports) return 0;
  fmt::print("\nmisfit         {:.4f} after {} gradients, 1 is the noise\n", found.misfit,
             evaluations);
  fmt::print("error of k     {:.2f} %, at first {:.2f} %\n", 100 * inversion.error(),
             100 * first_error);
  fmt::print("checkpoint     {}\nmetrics        {}\npicture        {}\n", checkpoints.path(step),
             metrics_path.string(), picture_path.string());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    Communicator world(MPI_COMM_WORLD);
    const CommandLine command = parse_command_line(argc, argv, world.rank());
    int status = command.exit_status.value_or(0);
    if (!command.exit_status) {
      status = command.options.check_gradient ? check(command.options, world)
                                              : run(command.options, world);
    }
    world.close();
    return status;
  });
}
