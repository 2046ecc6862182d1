#pragma once

#include <cstddef>
#include <filesystem>
#include <lockstep/train/chart.hpp>
#include <string>
#include <vector>

/// Numbers of n × n cells, row by row from below.
struct HeatMap {
  std::string title;
  std::vector<double> values;
  bool signed_values = false;  ///< colours for both signs, from -high to high
  double low = 0, high = 1;    ///< where the colours begin and end; signed ones begin at -high
};

/// An SVG picture: maps and a chart of one panel, two in a row. Error, with path and reason, where
/// it cannot be written.
void write_picture(const std::filesystem::path& path, const std::string& title,
                   const std::vector<HeatMap>& maps, const lockstep::train::Chart& chart);
