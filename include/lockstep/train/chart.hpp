#pragma once

#include <string>
#include <vector>

#pragma GCC visibility push(default)

namespace lockstep::train {

struct ChartPoint {
  double x = 0;
  double y = 0;
};

/// Points joined in their order. One that is not finite, or beyond ±1e300, leaves a gap.
struct ChartSeries {
  std::string name;
  std::vector<ChartPoint> points;
};

/// One pair of axes; the title says what is on the y axis, with its unit. That axis begins at 0 where
/// it is told to, and else where the points do.
struct ChartPanel {
  std::string title;
  std::vector<ChartSeries> series;
  bool from_zero = false;
};

/// Panels stand side by side, two in a row, and share the label of their x axes. Texts are UTF-8.
struct Chart {
  std::string title;
  std::string x_label;
  std::vector<ChartPanel> panels;
};

/// The chart as an SVG document, complete in itself, that reads well on white and on dark pages.
/// Its size is bounded by its width in pixels, however many points there are. OptionError without a
/// panel.
std::string line_chart_svg(const Chart& chart);

/// Writes line_chart_svg(chart) to a file, which has its old contents or all of the new ones
/// whatever happens. Error, with path and reason, where it cannot be written.
void write_line_chart(const std::string& path, const Chart& chart);

}  // namespace lockstep::train

#pragma GCC visibility pop
