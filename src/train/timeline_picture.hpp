#pragma once

#include <string>
#include <vector>

#include "train/timeline_file.hpp"

namespace lockstep::train {

/// The last complete steps of a timeline.
struct TimelinePicture {
  std::string svg;      ///< a row of bars for each rank; empty where no step is complete
  std::string caption;  ///< which part of the timeline it is
  std::size_t ranks = 0;
};

/// Draws up to four steps, less where they have thousands of spans; its size is bounded.
TimelinePicture draw_last_steps(const std::vector<TimelineSpan>& spans);

}  // namespace lockstep::train
