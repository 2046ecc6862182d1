#include "lockstep/train/heat_map.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <span>
#include <string_view>

#include "lockstep/core/error.hpp"
#include "train/chart_size.hpp"
#include "train/files.hpp"
#include "train/svg_text.hpp"

namespace lockstep::train {
namespace {

using Out = std::back_insert_iterator<std::string>;
using Colour = std::array<double, 3>;

// Pixels.
constexpr double width = 960, map_size = 252, map_top = 32, map_height = 348, heading_height = 44;
constexpr double map_font_size = 13;
constexpr std::size_t maps_in_a_row = 3, most_cells = 128;
constexpr int shades = 32;

// Viridis, by van der Walt and Smith, at five places.
constexpr std::array<Colour, 5> sequential{
    {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
// RdBu, by Brewer, backwards.
constexpr std::array<Colour, 5> diverging{
    {{33, 102, 172}, {146, 197, 222}, {247, 247, 247}, {244, 165, 130}, {178, 24, 43}}};

std::string colour_of(int shade, bool is_diverging) {
  const std::span<const Colour> colours(is_diverging ? diverging : sequential);
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

void check(const HeatMap& map) {
  if (map.columns == 0 || map.values.empty() || map.values.size() % map.columns != 0) {
    throw OptionError(fmt::format("map '{}': expected whole rows of {} numbers, found {} numbers",
                                  map.title, map.columns, map.values.size()));
  }
  if (std::isfinite(map.low) && std::isfinite(map.high) && map.low < map.high) return;
  throw OptionError(fmt::format("map '{}': expected a range of colours, found one from {} to {}",
                                map.title, map.low, map.high));
}

// The cells of a map as they are drawn: of many, some.
struct Cells {
  const HeatMap& map;
  std::size_t rows = map.values.size() / map.columns;
  std::size_t drawn_columns = std::min(map.columns, most_cells);
  std::size_t drawn_rows = std::min(rows, most_cells);
  double size = map_size / static_cast<double>(std::max(map.columns, rows));

  // The shade of a cell, or -1 for none.
  int shade(std::size_t row, std::size_t column) const {
    const std::size_t i = (2 * row + 1) * rows / (2 * drawn_rows);
    const std::size_t k = (2 * column + 1) * map.columns / (2 * drawn_columns);
    const double value = map.values[i * map.columns + k];
    if (!std::isfinite(value)) return -1;
    const double share = std::clamp((value - map.low) / (map.high - map.low), 0.0, 1.0);
    return std::min(static_cast<int>(share * shades), shades - 1);
  }
};

// All cells of a shade are one path, in which neighbours of a row are one line, as wide as a cell
// is high.
void draw_cells(std::string& svg, const Cells& cells) {
  std::array<std::string, shades> paths;
  for (std::size_t row = 0; row < cells.drawn_rows; ++row) {
    for (std::size_t begin = 0, end = 0; begin < cells.drawn_columns; begin = end) {
      const int shade = cells.shade(row, begin);
      while (end < cells.drawn_columns && cells.shade(row, end) == shade) ++end;
      if (shade < 0) continue;
      fmt::format_to(Out(paths[static_cast<std::size_t>(shade)]), "M{} {}h{}", begin,
                     cells.drawn_rows - 1 - row, end - begin);
    }
  }
  const auto scale = [&](std::size_t all, std::size_t drawn) {
    return cells.size * static_cast<double>(all) / static_cast<double>(drawn);
  };
  const double high = scale(cells.rows, cells.drawn_rows);
  fmt::format_to(Out(svg),
                 "<g transform=\"translate(0 {:.3f}) scale({:.5f} {:.5f})\" "
                 "shape-rendering=\"crispEdges\" stroke-width=\"1.01\">\n",
                 high / 2, scale(cells.map.columns, cells.drawn_columns), high);
  for (int shade = 0; shade < shades; ++shade) {
    const std::string& path = paths[static_cast<std::size_t>(shade)];
    if (path.empty()) continue;
    fmt::format_to(Out(svg), "<path stroke=\"{}\" d=\"{}\"/>\n",
                   colour_of(shade, cells.map.diverging), path);
  }
  svg += "</g>\n";
}

void draw_marks(std::string& svg, const Cells& cells) {
  const double height = static_cast<double>(cells.rows);
  for (const ChartPoint& dot : cells.map.dots) {
    fmt::format_to(Out(svg), "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"1.3\" fill=\"#ffffff\"/>\n",
                   dot.x * cells.size, (height - dot.y) * cells.size);
  }
  for (const ChartPoint& cross : cells.map.crosses) {
    fmt::format_to(Out(svg),
                   "<path d=\"M{:.1f} {:.1f}l8 8m0 -8l-8 8\" stroke=\"#ff4d4d\" "
                   "stroke-width=\"2\"/>\n",
                   cross.x * cells.size - 4, (height - cross.y) * cells.size - 4);
  }
}

void draw_scale(std::string& svg, const HeatMap& map) {
  constexpr double top = map_size + 14, height = 12, step = map_size / shades;
  for (int shade = 0; shade < shades; ++shade) {
    fmt::format_to(Out(svg),
                   "<rect x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\" fill=\"{}\"/>\n",
                   step * shade, top, step + 0.5, height, colour_of(shade, map.diverging));
  }
  constexpr std::array<std::string_view, 3> anchors{"start", "middle", "end"};
  for (std::size_t i = 0; i < anchors.size(); ++i) {
    const double share = static_cast<double>(i) / 2;
    draw_text(svg, share * map_size, top + height + 18, anchors[i],
              fmt::format("{:.3g}", map.low + share * (map.high - map.low)));
  }
}

}  // namespace

std::string field_picture_svg(const FieldPicture& picture) {
  if (picture.maps.empty()) throw OptionError("a picture of fields needs at least one map");
  for (const HeatMap& map : picture.maps) check(map);
  const std::size_t rows = (picture.maps.size() + maps_in_a_row - 1) / maps_in_a_row;
  const double maps_height = heading_height + map_height * static_cast<double>(rows);
  std::string chart;
  double chart_height = 0;
  if (!picture.chart.panels.empty()) {
    // A document within this one, at a place of its own.
    chart = line_chart_svg(picture.chart);
    chart_height = chart_svg_height(picture.chart);
    chart.insert(std::string_view("<svg").size(), fmt::format(" y=\"{}\"", maps_height));
  }
  std::string svg = svg_begin(width, maps_height + chart_height, map_font_size, picture.title);
  // One card for all.
  if (!chart.empty()) svg += "<style>svg svg > rect { display: none }</style>\n";
  draw_text(svg, width / 2, 28, "middle", picture.title, " font-size=\"16\" font-weight=\"600\"");
  constexpr double gap = (width - maps_in_a_row * map_size) / (maps_in_a_row + 1);
  for (std::size_t i = 0; i < picture.maps.size(); ++i) {
    const HeatMap& map = picture.maps[i];
    const Cells cells{map};
    fmt::format_to(Out(svg), "<g transform=\"translate({:.1f} {:.1f})\">\n",
                   gap + static_cast<double>(i % maps_in_a_row) * (map_size + gap),
                   heading_height + map_top + static_cast<double>(i / maps_in_a_row) * map_height);
    draw_text(svg, 0, -10, "start", map.title, " font-weight=\"600\"");
    draw_cells(svg, cells);
    draw_marks(svg, cells);
    draw_scale(svg, map);
    svg += "</g>\n";
  }
  return svg + chart + "</svg>\n";
}

void write_field_picture(const std::string& path, const FieldPicture& picture) {
  replace_file(path, field_picture_svg(picture));
}

}  // namespace lockstep::train
