#pragma once

#include <string>

#pragma GCC visibility push(default)

namespace lockstep::train {

struct ReportOptions {
  std::string out = {};       ///< the page; report.html in the run's folder where empty
  std::string timeline = {};  ///< timeline.json there, if there is one, where empty
};

/// Makes a page of a run's folder, from its metrics.jsonl and a timeline that start_timeline() wrote:
/// a summary, curves, learning rate, throughput, waiting by rank, and the last steps of the timeline.
/// The page is one HTML file that needs nothing else, no JavaScript either. docs/metrics.md says
/// which metrics it understands. Returns its path.
///
/// The page has its old contents or all of the new ones whatever happens. Error, with path and
/// reason, where a file cannot be read or written; DataError where one is damaged.
std::string write_report(const std::string& run, const ReportOptions& options = {});

}  // namespace lockstep::train

#pragma GCC visibility pop
