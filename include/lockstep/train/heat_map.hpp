#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "lockstep/train/chart.hpp"

#pragma GCC visibility push(default)

namespace lockstep::train {

/// Numbers of a field as colours, cell by cell. What is not finite is left white.
struct HeatMap {
  std::string title;
  std::vector<double> values;  ///< row by row, the lowest row first
  std::size_t columns = 0;     ///< of cells in a row
  /// What the first and the last colour stand for; numbers beyond have these colours too.
  double low = 0, high = 1;
  bool diverging = false;  ///< from blue by white to red, for numbers on both sides of the middle
  /// Marks, in cells from the lower left corner.
  std::vector<ChartPoint> dots = {}, crosses = {};
};

/// Maps, three in a row, and below them the panels of a chart, if it has any.
struct FieldPicture {
  std::string title;
  std::vector<HeatMap> maps;
  Chart chart = {};
};

/// The picture as an SVG document, complete in itself, that reads well on white and on dark pages.
/// Of maps with more than 128 cells in a row not all are drawn. OptionError without a map, or where
/// the values of one are no whole rows, or its range is empty.
std::string field_picture_svg(const FieldPicture& picture);

/// Writes field_picture_svg(picture) to a file, which has its old contents or all of the new ones
/// whatever happens. Error, with path and reason, where it cannot be written.
void write_field_picture(const std::string& path, const FieldPicture& picture);

}  // namespace lockstep::train

#pragma GCC visibility pop
