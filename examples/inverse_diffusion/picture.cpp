#include "picture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

using namespace lockstep;

namespace {

// Pixels.
constexpr double width = 960, map_size = 252, map_top = 76, maps_height = 400;

using Out = std::back_insert_iterator<std::string>;
using Colour = std::array<double, 3>;

/// From viridis, by van der Walt and Smith.
constexpr std::array<Colour, 5> sequential{
    {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
/// From RdBu, by Brewer.
constexpr std::array<Colour, 5> diverging{
    {{33, 102, 172}, {146, 197, 222}, {247, 247, 247}, {244, 165, 130}, {178, 24, 43}}};

/// Colours for the numbers from low to high.
struct Scale {
  double low = 0, high = 1;
  std::span<const Colour> colours;

  static constexpr int shades = 64;

  int shade(double value) const {
    const double share = std::clamp((value - low) / (high - low), 0.0, 1.0);
    return static_cast<int>(std::lround(share * (shades - 1)));
  }
  std::string colour(int shade) const {
    const double place = static_cast<double>(shade) / (shades - 1) * double(colours.size() - 1);
    const auto below = std::min(static_cast<std::size_t>(place), colours.size() - 2);
    const double share = place - static_cast<double>(below);
    std::string code = "#";
    for (std::size_t i = 0; i < 3; ++i) {
      const double mixed = colours[below][i] * (1 - share) + colours[below + 1][i] * share;
      fmt::format_to(Out(code), "{:02x}", std::lround(mixed));
    }
    return code;
  }
};

void draw_text(std::string& svg, double x, double y, std::string_view text,
               std::string_view more = "") {
  fmt::format_to(Out(svg), "<text x=\"{:.1f}\" y=\"{:.1f}\"{}>{}</text>\n", x, y, more, text);
}

/// One path a shade, with a rectangle for each run of cells of that shade in a row.
void draw_map(std::string& svg, std::span<const double> field, std::size_t cells, double x,
              double y, const Scale& scale) {
  std::vector<std::string> paths(Scale::shades);
  for (std::size_t row = 0; row < cells; ++row) {
    const std::span<const double> values = field.subspan(row * cells, cells);
    for (std::size_t begin = 0, end = 0; begin < cells; begin = end) {
      const int shade = scale.shade(values[begin]);
      while (end < cells && scale.shade(values[end]) == shade) ++end;
      fmt::format_to(Out(paths[static_cast<std::size_t>(shade)]), "M{} {}h{}v1h-{}z", begin,
                     cells - 1 - row, end - begin, end - begin);
    }
  }
  fmt::format_to(Out(svg),
                 "<g transform=\"translate({:.1f} {:.1f}) scale({:.6g})\" "
                 "shape-rendering=\"crispEdges\">\n",
                 x, y, map_size / static_cast<double>(cells));
  for (int shade = 0; shade < Scale::shades; ++shade) {
    const std::string& path = paths[static_cast<std::size_t>(shade)];
    if (path.empty()) continue;
    fmt::format_to(Out(svg), "<path fill=\"{}\" d=\"{}\"/>\n", scale.colour(shade), path);
  }
  svg += "</g>\n";
}

void draw_scale(std::string& svg, double x, const Scale& scale) {
  constexpr double top = map_top + map_size + 14, height = 12;
  const double step = map_size / Scale::shades;
  for (int shade = 0; shade < Scale::shades; ++shade) {
    fmt::format_to(Out(svg),
                   "<rect x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\"/>\n",
                   x + step * shade, top, step + 0.5, height, scale.colour(shade));
  }
  const std::array<std::string_view, 3> anchors{"start", "middle", "end"};
  for (std::size_t i = 0; i < anchors.size(); ++i) {
    const double share = static_cast<double>(i) / 2;
    const double value = scale.low + share * (scale.high - scale.low);
    draw_text(svg, x + share * map_size, top + height + 18, fmt::format("{:.2g}", value),
              fmt::format(" text-anchor=\"{}\"", anchors[i]));
  }
}

void draw_experiments(std::string& svg, std::size_t cells, std::int64_t experiments, double x) {
  const auto place = [x](const Point& point) {
    return Point{x + point.x * map_size, map_top + (1 - point.y) * map_size};
  };
  const auto centre = [cells](std::size_t i) {
    return (static_cast<double>(i) + 0.5) / static_cast<double>(cells);
  };
  for (const std::size_t cell : sensor_cells(cells)) {
    const Point at = place({centre(cell % cells), centre(cell / cells)});
    fmt::format_to(Out(svg), "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"1.3\" fill=\"#ffffff\"/>\n",
                   at.x, at.y);
  }
  for (std::int64_t i = 0; i < experiments; ++i) {
    const Point at = place(source_position(i));
    fmt::format_to(Out(svg),
                   "<path d=\"M{:.1f} {:.1f}l8 8m0 -8l-8 8\" stroke=\"#ff4d4d\" "
                   "stroke-width=\"2\"/>\n",
                   at.x - 4, at.y - 4);
  }
}

std::string curves(const std::filesystem::path& metrics) {
  train::ChartPanel misfit{.title = "log10 of the misfit: 0 is the noise", .series = {{}}};
  train::ChartPanel error{
      .title = "error of the conductivity (%)", .series = {{}}, .from_zero = true};
  for (const train::MetricRecord& record : train::read_metrics(metrics)) {
    double evaluation = 0;
    for (const train::Metric& metric : record) {
      if (const auto* count = std::get_if<std::int64_t>(&metric.value)) {
        if (metric.name == "evaluations") evaluation = static_cast<double>(*count);
      } else if (const auto* value = std::get_if<double>(&metric.value)) {
        if (metric.name == "misfit") {
          misfit.series[0].points.push_back({evaluation, std::log10(*value)});
        } else if (metric.name == "error") {
          error.series[0].points.push_back({evaluation, 100 * *value});
        }
      }
    }
  }
  return train::line_chart_svg({.title = "",
                                .x_label = "gradients computed",
                                .panels = {std::move(misfit), std::move(error)}});
}

}  // namespace

void draw_picture(const std::filesystem::path& picture, const std::filesystem::path& metrics,
                  const Inversion& inversion, std::int64_t experiments) {
  const std::size_t cells = inversion.solver().cells();
  Field truth, found, difference;
  for (std::size_t i = 0; i < cells * cells; ++i) {
    truth.push_back(inversion.truth()[i] / std::log(2.0));
    found.push_back(inversion.solver().log_conductivity()[i] / std::log(2.0));
    difference.push_back(found.back() - truth.back());
  }
  const Scale scale{.low = -2, .high = 2, .colours = sequential};
  const Scale signed_scale{.low = -2, .high = 2, .colours = diverging};

  const std::string chart = curves(metrics);
  constexpr double chart_height = 348;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" role=\"img\" fill=\"#24292f\" font-size=\"13\" "
      "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\">\n"
      "<title>A conductivity found by experiments</title>\n"
      "<rect x=\"0.5\" y=\"0.5\" width=\"{2}\" height=\"{3}\" rx=\"8\" fill=\"#ffffff\" "
      "stroke=\"#d0d7de\"/>\n",
      width, maps_height + 8 + chart_height, width - 1, maps_height - 1);
  draw_text(svg, width / 2, 28, "log2 of the conductivity",
            " text-anchor=\"middle\" font-size=\"16\" font-weight=\"600\"");
  constexpr double gap = (width - 3 * map_size) / 4;
  const auto left = [](int map) { return gap + map * (map_size + gap); };
  const auto draw = [&](int map, std::string_view title, const Field& field, const Scale& colours) {
    draw_text(svg, left(map), map_top - 10, title, " font-weight=\"600\"");
    draw_map(svg, field, cells, left(map), map_top, colours);
    draw_scale(svg, left(map), colours);
  };
  draw(0, fmt::format("true, {} sources, {} sensors", experiments, sensor_cells(cells).size()),
       truth, scale);
  draw_experiments(svg, cells, experiments, left(0));
  draw(1, fmt::format("found, error {:.1f} %", 100 * inversion.error()), found, scale);
  draw(2, "found − true", difference, signed_scale);
  fmt::format_to(Out(svg), "<g transform=\"translate(0 {})\">\n{}</g>\n</svg>\n", maps_height + 8,
                 chart);

  std::ofstream file(picture, std::ios::binary);
  file << svg << std::flush;
  if (!file) throw Error(fmt::format("{}: cannot be written", picture.string()));
}
