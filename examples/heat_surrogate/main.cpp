#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <limits>
#include <lockstep/lockstep.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comparison.hpp"
#include "decomposition.hpp"
#include "field_rows.hpp"
#include "options.hpp"
#include "solver.hpp"
#include "surrogate.hpp"

using namespace lockstep;

namespace {

void run(const Options& options, const Decomposition& cells, const Communicator& ranks) {
  const bool reports = ranks.rank() == 0;
  Solver solver(cells);
  Surrogate surrogate(ranks, solver.time_step(), options);

  FieldRows rows(cells);
  std::int64_t step = 0;
  double time = 0;
  std::int64_t training_steps = 0;
  double loss = std::numeric_limits<double>::quiet_NaN();
  Scalars progress(
      {{"step", &step}, {"time", &time}, {"training_steps", &training_steps}, {"loss", &loss}});
  std::vector<checkpoint::Item> state = surrogate.state();
  state.insert(state.end(), {{"fields", rows.state()}, {"progress", progress}});
  const auto folder = options.out / "checkpoints";
  ranks.agree([&] {
    if (reports && options.resume && !std::filesystem::exists(folder)) {
      throw OptionError(fmt::format("--resume: there is no '{}'", folder.string()));
    }
  });
  CheckpointManager checkpoints(
      folder, ranks, state,
      {.every_minutes = 5, .keep_last = 2, .signals = {SIGINT, SIGTERM, SIGUSR1}});
  if (!options.resume && checkpoints.newest()) {
    throw_collective({ErrorKind::option,
                      fmt::format("'{}' exists: pass --resume to go on with it, or another --out",
                                  checkpoints.path(*checkpoints.newest()))});
  }
  if (checkpoints.load_latest()) rows.give(solver.fields());
  const std::int64_t last = std::min(options.steps, options.stop_after.value_or(options.steps));
  if (step > last) {
    throw_collective({ErrorKind::option, fmt::format("'{}' is of time step {}: expected at most {}",
                                                     checkpoints.path(step), step, last)});
  }

  std::optional<train::MetricsLog> metrics;
  ranks.agree([&] {
    if (!reports) return;
    metrics.emplace(options.out / "metrics.jsonl",
                    options.resume ? train::MetricsMode::resume : train::MetricsMode::create);
    metrics->keep_until("step", static_cast<double>(step));
  });
  if (reports) {
    fmt::print("{0} × {0} cells on {1} × {2} ranks, time steps of {3:.2e}{4}\n", cells.cells(),
               cells.ranks()[0], cells.ranks()[1], solver.time_step(),
               options.resume ? fmt::format(", resumed after {}", step) : "");
  }

  train::Progress bar("training", options.steps,
                      {.enabled = reports, .unit = "steps", .initial = step});
  while (step < last && !checkpoints.stop_requested()) {
    solver.flow();
    const std::vector<std::size_t> burning = solver.burning_cells();
    surrogate.learn(solver.fields(), burning);
    const train::TrainReport report = surrogate.train();
    ++step;
    time += solver.time_step();

    training_steps += report.steps;
    if (report.steps > 0) loss = report.loss;
    const auto own = static_cast<double>(burning.size());
    const std::vector<double> of_ranks = ranks.gather(std::span<const double>(&own, 1));
    if (reports) {
      bar.update(step, training_steps == 0 ? std::string()
                                           : fmt::format("loss {:.1e}, {} steps of training", loss,
                                                         training_steps));
      metrics->append({{"split", "train"},
                       {"step", step},
                       {"time", time},
                       {"loss", report.loss},
                       {"training_steps", report.steps},
                       {"burning_cells", of_ranks}});
    }
    rows.take(solver.fields());
    if (!checkpoints.step(step) && step == last) checkpoints.save(step);
  }
  if (reports) bar.finish();
  if (step < options.steps) {
    if (reports) fmt::print("\nstopped after time step {}: go on with --resume\n", step);
    return;
  }
  if (options.compare_steps > 0) compare(solver, surrogate, cells, options, ranks);
  if (reports) fmt::print("checkpoint     {}\n", checkpoints.path(step));
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    Communicator world(MPI_COMM_WORLD);
    const CommandLine command = parse_command_line(argc, argv, world.rank());
    if (world.rank() == 0) {
      set_log_callback([](LogLevel level, std::string_view message) {
        if (level == LogLevel::warning) fmt::print("warning: {}\n", message);
      });
    }
    if (!command.exit_status) {
      // As in any simulation: the communicator is the solver's, and training has a duplicate of it.
      Decomposition cells(MPI_COMM_WORLD, static_cast<int>(command.options.cells));
      Communicator ranks(cells.communicator());
      run(command.options, cells, ranks);
      ranks.close();
      cells.close();
    }
    world.close();
    return command.exit_status.value_or(0);
  });
}
