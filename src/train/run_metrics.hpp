#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/train/chart.hpp"
#include "lockstep/train/metrics.hpp"

namespace lockstep::train {

enum class Better { neither, lower, higher };

/// What a report knows of a name; see docs/metrics.md.
struct MetricMeaning {
  std::string_view name;
  std::string_view title;  ///< with the unit
  double scale = 1;        ///< to that unit
  Better better = Better::neither;
};

/// A metric in the course of a run, in the unit of its title.
struct RunMetric {
  std::string name;
  std::string title;
  Better better = Better::neither;
  std::vector<ChartSeries> numbers;  ///< by split, which is the name of the series
  std::vector<ChartSeries> lists;    ///< by element; of a long list the least, median and greatest
};

/// The records of a run by name.
struct RunMetrics {
  std::size_t records = 0;
  std::string x_label;             ///< what the x of all points is
  std::vector<RunMetric> metrics;  ///< in the order of first appearance, without step and epoch
  std::vector<std::pair<std::string, std::string>> texts;  ///< the last of each, without split
  double last_step = 0;  ///< NaN where there is none, as those below
  double last_epoch = 0;
  std::size_t ranks = 0;  ///< 0 where no record tells

  const RunMetric* find(std::string_view name) const;
};

RunMetrics collect_metrics(const std::vector<MetricRecord>& records);

}  // namespace lockstep::train
