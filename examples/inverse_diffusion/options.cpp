#include "options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

namespace {

const CLI::Range at_least_one(std::int64_t{1}, std::int64_t{1'000'000'000});
// CLI11 wraps a negative number around.
const CLI::Validator not_negative(
    [](const std::string& text) { return text.starts_with('-') ? text + " is negative" : ""; }, "");

void add_run(CLI::App& app, Options& options) {
  app.option_defaults()->group("Run");
  app.add_option("--out", options.out, "For what it writes [run/inverse_diffusion]")
      ->option_text("FOLDER");
  app.add_flag("--resume", options.resume, "Go on from the checkpoint in --out");
  app.add_flag("--check-gradient", options.check_gradient,
               "Compare the gradient with finite differences,\nand do nothing else")
      ->excludes("--resume");
}

void add_experiments(CLI::App& app, Options& options) {
  app.option_defaults()->group("Experiments");
  app.add_option("--cells", options.cells, "In a row, and as many rows [40]")
      ->check(CLI::Range(std::int64_t{12}, std::int64_t{1000}))
      ->option_text("N");
  app.add_option("--experiments", options.experiments, "Each with a source of its own [12]")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000}))
      ->option_text("N");
  app.add_option("--noise", options.noise, "As a share of what is observed [0.01]")
      ->option_text("X");
  app.add_option("--seed", options.seed, "Of the noise [1]")->check(not_negative)->option_text("N");
}

void add_inversion(CLI::App& app, Options& options) {
  app.option_defaults()->group("Inversion");
  app.add_option("--optimizer", options.optimizer, "lbfgs or adam [lbfgs]")
      ->check(CLI::IsMember({"lbfgs", "adam"}))
      ->option_text("WORD");
  app.add_option(
         "--steps", options.steps,
         "Those before a resume included; of lbfgs,\neach is 5 iterations [lbfgs: 20, adam: "
         "300]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--lr", options.lr, "Learning rate [lbfgs: 1, adam: 0.1]")->option_text("X");
  app.add_option("--regularisation", options.regularisation,
                 "What the total variation counts [0.1]")
      ->option_text("X");
}

/// Throws for NaN as well.
void check_range(const char* option, double value, double low, double high) {
  if (value >= low && value <= high) return;
  throw CLI::ValidationError(option, fmt::format("expected {} to {}, found {}", low, high, value));
}

}  // namespace

CommandLine parse_command_line(int argc, char** argv, int rank) {
  CommandLine result;
  CLI::App app("Finds a conductivity by experiments that are divided over the ranks.",
               "inverse_diffusion");
  app.get_formatter()->column_width(27);
  add_run(app, result.options);
  add_experiments(app, result.options);
  add_inversion(app, result.options);
  try {
    app.parse(argc, argv);
    check_range("--noise", result.options.noise, 1e-6, 1);
    check_range("--regularisation", result.options.regularisation, 0, 1e6);
  } catch (const CLI::CallForHelp&) {
    if (rank == 0) std::fputs(app.help().c_str(), stdout);
    result.exit_status = 0;
  } catch (const CLI::ParseError& error) {
    if (rank == 0) std::fprintf(stderr, "error: %s (try --help)\n", error.what());
    result.exit_status = 2;
  }
  return result;
}
