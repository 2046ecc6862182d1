#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lockstep::train {

/// Something that a rank did, in microseconds.
struct TimelineSpan {
  std::int64_t rank = 0;
  std::string name;
  double begin = 0;
  double end = 0;
  bool overlapping = false;  ///< may overlap with others of its rank; those that may not are nested
};

/// What is in a file that start_timeline() began, which may lack the end of its array. DataError
/// where it is not such a file.
std::vector<TimelineSpan> read_timeline(const std::filesystem::path& path);

}  // namespace lockstep::train
