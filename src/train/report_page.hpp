#pragma once

#include <string>
#include <string_view>

#include "train/run_metrics.hpp"
#include "train/timeline_picture.hpp"

namespace lockstep::train {

/// The HTML page of a run; `timeline` may be null.
std::string report_page(std::string_view title, const RunMetrics& run,
                        const TimelinePicture* timeline);

}  // namespace lockstep::train
