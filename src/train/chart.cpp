#include "lockstep/train/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <span>
#include <string_view>

#include "lockstep/core/error.hpp"
#include "train/axis.hpp"
#include "train/chart_size.hpp"
#include "train/files.hpp"
#include "train/svg_text.hpp"

namespace lockstep::train {
namespace {

// Pixels.
constexpr double panel_width = 480;
constexpr double panel_height = 340;
constexpr double left = 64, right = 18, top = 34, bottom = 46;
constexpr double legend_row = 20;
constexpr int legend_rows = 6;
constexpr double title_height = 40;
constexpr double font_size = 13;

// Okabe and Ito's colours, which people with colour blindness tell apart, darkened for thin lines.
constexpr std::array<std::string_view, 7> colours{"#0072b2", "#d55e00", "#009e73", "#b5478a",
                                                  "#8a6d00", "#4a9fd8", "#333333"};
constexpr std::array<std::string_view, 3> dashes{"", " stroke-dasharray=\"7 4\"",
                                                 " stroke-dasharray=\"2 3\""};

struct Style {
  std::string_view colour;
  std::string_view dash;
};

Style style(std::size_t series) {
  return {colours[series % colours.size()], dashes[series / colours.size() % dashes.size()]};
}

bool can_be_drawn(const ChartPoint& point) {
  constexpr double limit = 1e300;
  return std::abs(point.x) <= limit && std::abs(point.y) <= limit;  // false for NaN
}

struct Axes {
  Axis x;
  Axis y;
  bool empty = true;
};

Axes make_axes(const ChartPanel& panel) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  ChartPoint low{infinity, infinity};
  ChartPoint high{-infinity, -infinity};
  bool whole = true;
  Axes axes;
  for (const ChartSeries& series : panel.series) {
    for (const ChartPoint& point : series.points) {
      if (!can_be_drawn(point)) continue;
      low = {std::min(low.x, point.x), std::min(low.y, point.y)};
      high = {std::max(high.x, point.x), std::max(high.y, point.y)};
      whole = whole && point.x == std::floor(point.x);
      axes.empty = false;
    }
  }
  if (axes.empty) {
    low = {0, 0};
    high = {1, 1};
  }
  if (panel.from_zero) {
    low.y = std::min(low.y, 0.0);
    high.y = std::max(high.y, 0.0);
  }
  axes.x = make_axis(low.x, high.x, {.ticks = 6, .whole_steps = whole});
  axes.y = make_axis(low.y, high.y, {.end_on_ticks = true});
  return axes;
}

// The part of a panel that the axes enclose.
struct Plot {
  double x0, y0, x1, y1;
  Axes axes;

  double x(double value) const { return x0 + (x1 - x0) * share(value, axes.x); }
  double y(double value) const { return y1 - (y1 - y0) * share(value, axes.y); }

 private:
  static double share(double value, const Axis& axis) {
    return (value - axis.low) / (axis.high - axis.low);
  }
};

// Of points that share a column of pixels, the first, the last, the lowest and the highest: what is
// drawn stays the same (the M4 aggregation of Jugel et al., VLDB 2014).
std::vector<ChartPoint> thin_out(std::span<const ChartPoint> points) {
  std::vector<ChartPoint> kept;
  for (auto begin = points.begin(); begin != points.end();) {
    const auto end = std::find_if(begin, points.end(), [&](const ChartPoint& point) {
      return std::floor(point.x) != std::floor(begin->x);
    });
    const auto [low, high] = std::minmax_element(
        begin, end, [](const ChartPoint& a, const ChartPoint& b) { return a.y < b.y; });
    std::array order{begin, low, high, end - 1};
    std::sort(order.begin(), order.end());
    const auto distinct = std::unique(order.begin(), order.end());
    for (auto it = order.begin(); it != distinct; ++it) kept.push_back(**it);
    begin = end;
  }
  return kept;
}

using Out = std::back_insert_iterator<std::string>;

void draw_run(std::string& svg, std::span<const ChartPoint> run, const Style& style, bool markers) {
  if (run.size() > 1) {
    svg += "<path d=\"";
    char command = 'M';
    for (const ChartPoint& point : thin_out(run)) {
      fmt::format_to(Out(svg), "{}{:.1f} {:.1f}", command, point.x, point.y);
      command = 'L';
    }
    constexpr std::size_t dense = 1000;
    fmt::format_to(
        Out(svg),
        "\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{}/>\n",
        style.colour, run.size() > dense ? 1.0 : 1.8, style.dash);
  }
  if (run.size() == 1 || markers) {
    for (const ChartPoint& point : run) {
      fmt::format_to(Out(svg), "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.8\" fill=\"{}\"/>\n",
                     point.x, point.y, style.colour);
    }
  }
}

void draw_series(std::string& svg, const Plot& plot, const ChartSeries& series,
                 const Style& style) {
  constexpr std::size_t most_markers = 40;
  const bool markers = series.points.size() <= most_markers;
  std::vector<ChartPoint> run;
  for (const ChartPoint& point : series.points) {
    if (can_be_drawn(point)) {
      run.push_back({plot.x(point.x), plot.y(point.y)});
    } else {
      draw_run(svg, run, style, markers);
      run.clear();
    }
  }
  draw_run(svg, run, style, markers);
}

void draw_axes(std::string& svg, const Plot& plot, std::string_view x_label) {
  const auto line = [&svg](double x0, double y0, double x1, double y1, std::string_view colour) {
    fmt::format_to(
        Out(svg), "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n",
        x0, y0, x1, y1, colour);
  };
  constexpr std::string_view grid = "#e4e7eb";
  constexpr std::string_view frame = "#8a929c";
  for (const Tick& tick : plot.axes.y.ticks) {
    const double y = plot.y(tick.value);
    line(plot.x0, y, plot.x1, y, grid);
    draw_text(svg, plot.x0 - 8, y + 4.5, "end", tick.label);
  }
  for (const Tick& tick : plot.axes.x.ticks) {
    const double x = plot.x(tick.value);
    line(x, plot.y0, x, plot.y1, grid);
    draw_text(svg, x, plot.y1 + 18, "middle", tick.label);
  }
  line(plot.x0, plot.y1, plot.x1, plot.y1, frame);
  line(plot.x0, plot.y0, plot.x0, plot.y1, frame);
  draw_text(svg, (plot.x0 + plot.x1) / 2, plot.y1 + 38, "middle", x_label);
}

// Draws the names of the series in rows below y, as many as there is room for; returns the rows
// taken.
int draw_legend(std::string& svg, const ChartPanel& panel, double x0, double x1, double y) {
  constexpr double swatch = 22, between = 18;
  double x = x0;
  int rows = 0;
  for (std::size_t i = 0; i < panel.series.size(); ++i) {
    const std::string& name = panel.series[i].name;
    if (name.empty()) continue;
    const double item = swatch + 6 + text_width(name, font_size);
    if (rows == 0 || x + item > x1) {
      if (rows == legend_rows) break;
      x = x0;
      ++rows;
    }
    const double middle = y + legend_row * rows - 10;
    fmt::format_to(Out(svg),
                   "<path d=\"M{:.1f} {:.1f}h{}\" stroke=\"{}\" stroke-width=\"2.5\"{}/>\n", x,
                   middle, swatch, style(i).colour, style(i).dash);
    draw_text(svg, x + swatch + 6, middle + 4.5, "start", name);
    x += item + between;
  }
  return rows;
}

void draw_panel(std::string& svg, const ChartPanel& panel, std::string_view x_label, double x,
                double y) {
  draw_text(svg, x + left, y + 22, "start", panel.title, " font-weight=\"600\"");
  const double x1 = x + panel_width - right;
  const int rows = draw_legend(svg, panel, x + left, x1, y + top);
  const double y0 = y + top + legend_row * rows + 6;
  const Axes axes = make_axes(panel);
  double x0 = x + left;
  for (const Tick& tick : axes.y.ticks) {
    x0 = std::max(x0, x + 16 + text_width(tick.label, font_size));
  }
  const Plot plot{x0, y0, x1, y + panel_height - bottom, axes};
  draw_axes(svg, plot, x_label);
  for (std::size_t i = 0; i < panel.series.size(); ++i) {
    draw_series(svg, plot, panel.series[i], style(i));
  }
  if (plot.axes.empty) {
    draw_text(svg, (plot.x0 + plot.x1) / 2, (plot.y0 + plot.y1) / 2, "middle", "no data");
  }
}

}  // namespace

namespace {

double head_of(const Chart& chart) { return chart.title.empty() ? 8 : title_height; }

std::size_t columns_of(const Chart& chart) { return std::min<std::size_t>(chart.panels.size(), 2); }

}  // namespace

double chart_svg_height(const Chart& chart) {
  const std::size_t columns = columns_of(chart);
  const std::size_t rows = (chart.panels.size() + columns - 1) / columns;
  return panel_height * static_cast<double>(rows) + head_of(chart);
}

std::string line_chart_svg(const Chart& chart) {
  if (chart.panels.empty()) throw OptionError("a chart needs at least one panel, found none");
  const std::size_t columns = columns_of(chart);
  const double head = head_of(chart), width = panel_width * static_cast<double>(columns);
  std::string svg = svg_begin(width, chart_svg_height(chart), font_size, chart.title);
  if (!chart.title.empty()) {
    draw_text(svg, width / 2, 28, "middle", chart.title, " font-size=\"16\" font-weight=\"600\"");
  }
  for (std::size_t i = 0; i < chart.panels.size(); ++i) {
    draw_panel(svg, chart.panels[i], chart.x_label, panel_width * static_cast<double>(i % columns),
               head + panel_height * static_cast<double>(i / columns));
  }
  return svg + "</svg>\n";
}

void write_line_chart(const std::string& path, const Chart& chart) {
  replace_file(path, line_chart_svg(chart));
}

}  // namespace lockstep::train
