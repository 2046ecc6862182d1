#include "lockstep/train/report.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <system_error>

#include "lockstep/core/error.hpp"
#include "lockstep/train/metrics.hpp"
#include "train/files.hpp"
#include "train/report_page.hpp"
#include "train/timeline_file.hpp"

namespace lockstep::train {
namespace {

// "fashion_mnist" of run/fashion_mnist/ and of "." in that folder.
std::string name_of(const std::filesystem::path& folder) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::canonical(folder, error);
  return error ? folder.string() : whole.filename().string();
}

}  // namespace

std::string write_report(const std::string& run_folder, const ReportOptions& options) {
  const std::filesystem::path run = run_folder;
  std::error_code error;
  if (!std::filesystem::is_directory(run, error)) {
    throw Error(fmt::format("{}: expected the folder of a run, found {}", run.string(),
                            std::filesystem::exists(run, error) ? "a file" : "nothing"));
  }
  const RunMetrics metrics = collect_metrics(read_metrics(run / "metrics.jsonl"));
  const std::filesystem::path timeline =
      options.timeline.empty() ? run / "timeline.json" : std::filesystem::path(options.timeline);
  std::optional<TimelinePicture> picture;
  if (!options.timeline.empty() || std::filesystem::exists(timeline, error)) {
    picture = draw_last_steps(read_timeline(timeline));
  }
  const std::filesystem::path page =
      options.out.empty() ? run / "report.html" : std::filesystem::path(options.out);
  replace_file(page, report_page(name_of(run), metrics, picture ? &*picture : nullptr));
  return page.string();
}

}  // namespace lockstep::train
