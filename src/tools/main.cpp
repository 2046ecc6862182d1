#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <filesystem>

#include "lockstep/train/metrics.hpp"
#include "lockstep/train/report.hpp"

namespace {

struct Report {
  std::filesystem::path run;
  std::filesystem::path csv;
  lockstep::train::ReportOptions options;
};

void add_report(CLI::App& app, Report& report) {
  CLI::App* command = app.add_subcommand(
      "report", "Makes a page of the folder of a run, from its metrics.jsonl and its timeline");
  command->add_option("run", report.run, "The folder")->required()->type_name("RUN");
  command->add_option("--out", report.options.out, "The page [report.html in the folder]")
      ->type_name("FILE");
  command
      ->add_option("--timeline", report.options.timeline,
                   "The timeline [timeline.json in the folder, if it is there]")
      ->type_name("FILE");
  command->add_option("--csv", report.csv, "Writes the metrics to a CSV file too")
      ->type_name("FILE");
  command->callback([&report] {
    const auto page = lockstep::train::write_report(report.run, report.options);
    std::printf("report  %s\n", page.c_str());
    if (report.csv.empty()) return;
    lockstep::train::write_csv(report.csv,
                               lockstep::train::read_metrics(report.run / "metrics.jsonl"));
    std::printf("csv     %s\n", report.csv.c_str());
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What lockstep has to look at what training programs leave behind.", "lockstep");
  app.set_version_flag("--version", "lockstep " LOCKSTEP_VERSION);
  app.require_subcommand(1);
  Report report;
  add_report(app, report);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "error: %s (try --help)\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
