#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>

CommandLine parse_command_line(int argc, char** argv, int rank) {
  CommandLine result;
  Options& options = result.options;
  CLI::App app(
      "Trains a 784-512-512-10 network on Fashion-MNIST, on as many ranks as mpirun starts.");
  const CLI::Range at_least_one(std::int64_t{1}, std::int64_t{1'000'000'000});
  // CLI11 wraps a negative number around.
  const CLI::Validator not_negative(
      [](const std::string& text) { return text.starts_with('-') ? text + " is negative" : ""; },
      "");
  app.add_option("--data", options.data, "Folder of the four IDX files, plain or .gz")
      ->capture_default_str();
  app.add_option("--epochs", options.epochs, "Epochs in all, those before a resume included")
      ->check(at_least_one)
      ->capture_default_str();
  app.add_option("--batch", options.batch, "Images per rank and step")
      ->check(at_least_one)
      ->capture_default_str();
  app.add_option("--optimizer", options.optimizer, "Update rule: sgd or adam")
      ->check(CLI::IsMember({"sgd", "adam"}))
      ->capture_default_str();
  app.add_option("--lr", options.lr,
                 "Learning rate [0.05 for sgd, 0.0005 for adam; after --resume, that of the run]");
  app.add_option("--momentum", options.momentum, "Momentum of sgd")->capture_default_str();
  app.add_option("--seed", options.seed, "Seed of initial values and of the order of images")
      ->check(not_negative)
      ->capture_default_str();
  app.add_option("--out", options.out, "Folder of checkpoint, metrics and picture")
      ->capture_default_str();
  app.add_flag("--resume", options.resume,
               "Go on from the checkpoint in --out, on any number of ranks");
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
