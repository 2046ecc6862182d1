#pragma once

#include "lockstep/train/chart.hpp"

namespace lockstep::train {

/// The height of line_chart_svg(chart) in pixels.
double chart_svg_height(const Chart& chart);

}  // namespace lockstep::train
