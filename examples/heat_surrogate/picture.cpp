#include "picture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <lockstep/core/error.hpp>
#include <span>
#include <string_view>

namespace {

using Colour = std::array<double, 3>;

// Pixels. A panel is as large as one of a chart.
constexpr double panel_width = 480, panel_height = 356, head = 44;
constexpr double map_left = 64, map_top = 44, map_size = 288;
constexpr double bar_left = map_left + map_size + 24, bar_width = 16;
constexpr int levels = 32;
// Cells of a row that are drawn; more would not be seen.
constexpr std::size_t most_cells = 96;

constexpr std::array<Colour, 6> heat{
    {{13, 13, 38}, {87, 16, 110}, {188, 55, 84}, {237, 105, 37}, {251, 180, 60}, {252, 250, 200}}};
constexpr std::array<Colour, 5> signs{
    {{33, 102, 172}, {146, 197, 222}, {247, 247, 247}, {244, 165, 130}, {178, 24, 43}}};

std::string colour_of(int level, bool signed_values) {
  const std::span<const Colour> colours =
      signed_values ? std::span<const Colour>(signs) : std::span<const Colour>(heat);
  const double at = (level + 0.5) / levels * static_cast<double>(colours.size() - 1);
  const auto i = static_cast<std::size_t>(at);
  std::array<int, 3> mixed{};
  for (std::size_t k = 0; k < 3; ++k) {
    const double mix = at - static_cast<double>(i);
    mixed[k] = static_cast<int>(std::lround(colours[i][k] * (1 - mix) + colours[i + 1][k] * mix));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", mixed[0], mixed[1], mixed[2]);
}

using Out = std::back_insert_iterator<std::string>;

void draw_text(std::string& svg, double x, double y, std::string_view text,
               std::string_view more = "") {
  fmt::format_to(Out(svg), "<text x=\"{:.1f}\" y=\"{:.1f}\"{}>{}</text>\n", x, y, more, text);
}

// All cells of a colour are one path, in which neighbours of a row are one line as wide as a cell.
void draw_cells(std::string& svg, const HeatMap& map, double low) {
  const auto n = static_cast<std::size_t>(std::lround(std::sqrt(map.values.size())));
  const std::size_t drawn = std::min(n, most_cells);
  const auto level_at = [&](std::size_t row, std::size_t column) {
    const auto cell = [&](std::size_t i) { return (2 * i + 1) * n / (2 * drawn); };
    const double share = (map.values[cell(row) * n + cell(column)] - low) / (map.high - low);
    return share > 0 ? static_cast<std::size_t>(std::min(share * levels, levels - 1.0)) : 0;
  };
  std::array<std::string, levels> paths;
  for (std::size_t row = 0; row < drawn; ++row) {
    for (std::size_t column = 0; column < drawn;) {
      const std::size_t level = level_at(row, column), begin = column;
      while (column < drawn && level_at(row, column) == level) ++column;
      fmt::format_to(Out(paths[level]), "M{} {}h{}", begin, drawn - 1 - row, column - begin);
    }
  }
  const double size = map_size / static_cast<double>(drawn);
  fmt::format_to(
      Out(svg),
      "<g transform=\"translate({} {:.3f}) scale({:.5f})\" shape-rendering=\"crispEdges\" "
      "stroke-width=\"1.01\">\n",
      map_left, map_top + size / 2, size);
  for (int level = 0; level < levels; ++level) {
    const std::string& path = paths[static_cast<std::size_t>(level)];
    if (path.empty()) continue;
    fmt::format_to(Out(svg), "<path stroke=\"{}\" d=\"{}\"/>\n",
                   colour_of(level, map.signed_values), path);
  }
  svg += "</g>\n";
}

void draw_map(std::string& svg, const HeatMap& map, double x, double y) {
  const double low = map.signed_values ? -map.high : map.low;
  fmt::format_to(Out(svg), "<g transform=\"translate({} {})\">\n", x, y);
  draw_text(svg, map_left, 30, map.title, " font-weight=\"600\"");
  draw_cells(svg, map, low);
  const double height = map_size / levels;
  for (int level = 0; level < levels; ++level) {
    fmt::format_to(Out(svg),
                   "<rect x=\"{}\" y=\"{:.2f}\" width=\"{}\" height=\"{:.2f}\" fill=\"{}\"/>\n",
                   bar_left, map_top + height * (levels - 1 - level), bar_width, height + 0.5,
                   colour_of(level, map.signed_values));
  }
  constexpr int ticks = 4;
  for (int tick = 0; tick <= ticks; ++tick) {
    draw_text(svg, bar_left + bar_width + 8,
              map_top + map_size * (1 - double{1} * tick / ticks) + 4.5,
              fmt::format("{:.3g}", low + (map.high - low) * tick / ticks));
  }
  svg += "</g>\n";
}

}  // namespace

void write_picture(const std::filesystem::path& path, const std::string& title,
                   const std::vector<HeatMap>& maps, const lockstep::train::Chart& chart) {
  const std::size_t panels = maps.size() + 1;
  const double width = 2 * panel_width;
  const double height = head + panel_height * static_cast<double>((panels + 1) / 2);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" "
      "role=\"img\" fill=\"#24292f\" font-size=\"13\" "
      "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\">\n<title>{2}</title>\n"
      "<rect x=\"0.5\" y=\"0.5\" width=\"{3}\" height=\"{4}\" rx=\"8\" fill=\"#ffffff\" "
      "stroke=\"#d0d7de\"/>\n<style>svg svg > rect {{ display: none }}</style>\n",
      width, height, title, width - 1, height - 1);
  draw_text(svg, width / 2, 28, title,
            " text-anchor=\"middle\" font-size=\"16\" font-weight=\"600\"");
  const auto x = [](std::size_t i) { return panel_width * static_cast<double>(i % 2); };
  const auto y = [](std::size_t i) { return head + panel_height * static_cast<double>(i / 2); };
  for (std::size_t i = 0; i < maps.size(); ++i) draw_map(svg, maps[i], x(i), y(i));
  // A document within this one, at a place of its own.
  std::string inner = lockstep::train::line_chart_svg(chart);
  inner.insert(std::strlen("<svg"),
               fmt::format(" x=\"{}\" y=\"{}\"", x(panels - 1), y(panels - 1)));
  svg += inner + "</svg>\n";

  std::ofstream file(path, std::ios::binary);
  file << svg;
  file.close();
  if (!file) {
    throw lockstep::Error(
        fmt::format("cannot write '{}': {}", path.string(), std::strerror(errno)));
  }
}
