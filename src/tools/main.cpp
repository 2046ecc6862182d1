#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/core/version.hpp"
#include "lockstep/train/metrics.hpp"
#include "lockstep/train/report.hpp"
#include "tools/convert.hpp"
#include "tools/diff.hpp"
#include "tools/inspect.hpp"
#include "tools/verify.hpp"

namespace {

using namespace lockstep;

constexpr int success = 0;
constexpr int failure = 1;  // of diff: they differ
constexpr int trouble = 2;  // not understood; of diff: any trouble

struct Report {
  std::filesystem::path run;
  std::filesystem::path csv;
  train::ReportOptions options;
};

void add_report(CLI::App& app, Report& report) {
  CLI::App* command = app.add_subcommand("report", "Makes a page of the folder of a run");
  command->add_option("run", report.run, "The folder, with metrics.jsonl")
      ->required()
      ->type_name("RUN");
  command->add_option("--out", report.options.out, "The page [report.html in the folder]")
      ->type_name("FILE");
  command
      ->add_option("--timeline", report.options.timeline,
                   "The timeline [timeline.json in the folder, if it\nis there]")
      ->type_name("FILE");
  command->add_option("--csv", report.csv, "Writes the metrics to a CSV file too")
      ->type_name("FILE");
  command->footer("Ends with status 0, 1 where a file cannot be used, 2 where arguments cannot.");
  command->callback([&report] {
    const auto page = train::write_report(report.run, report.options);
    std::printf("report  %s\n", page.c_str());
    if (report.csv.empty()) return;
    train::write_csv(report.csv, train::read_metrics(report.run / "metrics.jsonl"));
    std::printf("csv     %s\n", report.csv.c_str());
  });
}

void add_inspect(CLI::App& app, tools::InspectOptions& options) {
  CLI::App* command = app.add_subcommand("inspect", "Shows what is in a checkpoint");
  command->add_option("file", options.file, "The checkpoint")->required()->type_name("FILE");
  command->add_flag("--values", options.values, "Of each tensor the least, the greatest, the mean");
  command->add_flag("--json", options.json, "For programs");
  command->footer("Ends with status 0, 1 where a file cannot be used, 2 where arguments cannot.");
  command->callback([&options] { tools::inspect(options); });
}

void add_verify(CLI::App& app, std::vector<std::filesystem::path>& files, int& status) {
  CLI::App* command = app.add_subcommand("verify", "Reads checkpoints and verifies all checksums");
  command->add_option("file", files, "The checkpoints")->required()->type_name("FILE");
  command->footer(
      "Ends with status 0, 1 where a file cannot be read or is damaged, 2 where the\n"
      "arguments cannot be used.");
  command->callback([&] { status = tools::verify(files) ? success : failure; });
}

void add_diff(CLI::App& app, tools::DiffOptions& options, int& status) {
  CLI::App* command = app.add_subcommand("diff", "Tells how two checkpoints differ");
  command->add_option("a", options.a, "A checkpoint")->required()->type_name("A");
  command->add_option("b", options.b, "Another one")->required()->type_name("B");
  command
      ->add_option("--tolerance", options.tolerance,
                   "Numbers also count as equal where they differ by\nno more than X times the "
                   "greatest in their tensor")
      ->check(
          [](const std::string& text) { return std::string(text.empty() ? "it is empty" : ""); })
      ->type_name("X");
  command->add_flag("--json", options.json, "For programs");
  command->footer(
      "Ends with status 0 where they are equal, 1 where they differ, 2 where one cannot\n"
      "be used or the arguments cannot.");
  command->callback([&] { status = tools::diff(options) ? success : failure; });
}

void add_convert(CLI::App& app, tools::ConvertOptions& options) {
  CLI::App* command =
      app.add_subcommand("convert", "Converts checkpoints, safetensors and NPY files");
  command->add_option("in", options.in, "The file to convert")->required()->type_name("IN");
  command
      ->add_option("out", options.out,
                   "A name that ends with .lockstep, .safetensors or\n.npy, or a folder for NPY "
                   "files (folder/)")
      ->required()
      ->type_name("OUT");
  command
      ->add_option("--item", options.items,
                   "Of a checkpoint only this item; may be repeated.\nOf a safetensors file for a "
                   "checkpoint the name\nthat the model gets [model]")
      ->allow_extra_args(false)
      ->type_name("NAME");
  command
      ->add_option("--tensor", options.tensor, "The tensor of an NPY file, such as model/0.weight")
      ->type_name("PATH");
  command->add_flag("--drop", options.drop, "Leaves out what OUT has no place for, and tells it");
  command->add_flag("--force", options.force, "Replaces files that exist");
  command->footer("Ends with status 0, 1 where a file cannot be used, 2 where arguments cannot.");
  command->callback([&options] { tools::convert(options); });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What lockstep has to look at and convert what training programs leave behind.",
               "lockstep");
  app.set_version_flag("--version", fmt::format("lockstep {}", version()));
  app.require_subcommand(1);
  int status = success;
  Report report;
  add_report(app, report);
  tools::InspectOptions inspect_options;
  add_inspect(app, inspect_options);
  std::vector<std::filesystem::path> files;
  add_verify(app, files, status);
  tools::DiffOptions diff_options;
  add_diff(app, diff_options, status);
  tools::ConvertOptions convert_options;
  add_convert(app, convert_options);
  try {
    app.parse(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
      throw Error(std::string("cannot write what there is to tell: ") + std::strerror(errno));
    }
    return status;
  } catch (const CLI::Success& request) {
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "error: %s (try --help)\n", error.what());
    return trouble;
  } catch (const OptionError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return trouble;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return app.got_subcommand("diff") ? trouble : failure;
  }
}
