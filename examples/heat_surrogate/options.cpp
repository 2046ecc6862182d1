#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

namespace {

const CLI::Range at_least_zero(std::int64_t{0}, std::int64_t{1'000'000'000});
const CLI::Range at_least_one(std::int64_t{1}, std::int64_t{1'000'000'000});
// CLI11 wraps a negative number around.
const CLI::Validator not_negative(
    [](const std::string& text) { return text.starts_with('-') ? text + " is negative" : ""; }, "");

void add_run(CLI::App& app, Options& options) {
  app.option_defaults()->group("Run");
  app.add_option("--out", options.out, "For what it writes [run/heat_surrogate]")
      ->option_text("FOLDER");
  app.add_flag("--resume", options.resume, "Go on from the checkpoint in --out");
  app.add_option("--stop-after", options.stop_after, "Save and stop after that time step")
      ->check(at_least_one)
      ->option_text("N");
}

void add_simulation(CLI::App& app, Options& options) {
  app.option_defaults()->group("Simulation");
  app.add_option("--cells", options.cells, "Along each axis [96]")
      ->check(CLI::Range(std::int64_t{8}, std::int64_t{10'000}))
      ->option_text("N");
  app.add_option("--steps", options.steps,
                 "Time steps with the exact source term, in\nwhich the surrogate is trained [400]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--compare-steps", options.compare_steps,
                 "Time steps after them, made once with each [200]")
      ->check(at_least_zero)
      ->option_text("N");
}

void add_training(CLI::App& app, Options& options) {
  app.option_defaults()->group("Training");
  CLI::Option* const budget =
      app.add_option("--budget", options.budget, "Seconds of training in each time step [0.02]")
          ->check(CLI::Range(0.0, 1e6))
          ->option_text("SECONDS");
  app.add_option("--train-steps", options.train_steps,
                 "Steps of training in each time step instead:\nthe same bits in each run")
      ->check(at_least_zero)
      ->excludes(budget)
      ->option_text("N");
  app.add_option("--batch", options.batch, "Cells a step, of all ranks [512]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--width", options.width, "Of the two hidden layers [32]")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{10'000}))
      ->option_text("N");
  app.add_option("--capacity", options.capacity, "Cells in the reservoir, of all ranks [100000]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--lr", options.lr, "Learning rate at the beginning [0.005]")->option_text("X");
  app.add_option("--seed", options.seed, "Of initial values and what is drawn [1]")
      ->check(not_negative)
      ->option_text("N");
}

}  // namespace

CommandLine parse_command_line(int argc, char** argv, int rank) {
  CommandLine result;
  CLI::App app("Trains a surrogate of a source term in the course of a simulation.",
               "heat_surrogate");
  app.get_formatter()->column_width(27);
  add_run(app, result.options);
  add_simulation(app, result.options);
  add_training(app, result.options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    if (rank == 0) std::fputs(app.help().c_str(), stdout);
    result.exit_status = 0;
  } catch (const CLI::ParseError& error) {
    if (rank == 0) std::fprintf(stderr, "error: %s (try --help)\n", error.what());
    result.exit_status = 2;
  }
  return result;
}
