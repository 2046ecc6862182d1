#include "train/timeline_picture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <string_view>
#include <utility>

#include "train/axis.hpp"
#include "train/svg_text.hpp"

namespace lockstep::train {
namespace {

// Pixels.
constexpr double picture_width = 960, left_margin = 92, right_margin = 16, top_margin = 60;
constexpr double bar_height = 24, lane_height = 16, lane_gap = 3, between_ranks = 12;
constexpr double timeline_font_size = 12;

constexpr std::size_t most_steps = 4, most_bars = 4000, most_lanes = 8, most_ranks_with_lanes = 16;

struct Kind {
  std::string_view name;
  std::string_view colour;
  std::string_view text = "#ffffff";
};

constexpr std::array<Kind, 6> kinds{{{"forward", "#3b6ea5"},
                                     {"backward", "#c4621a"},
                                     {"wait", "#cbc5bf", "#24292f"},
                                     {"step", "#3f8a3b"},
                                     {"bucket", "#8f5a86"},
                                     {"other", "#3d8580"}}};

const Kind& kind_of(std::string_view name) {
  const std::string_view first_word = name.substr(0, name.find(' '));
  return *std::find_if(kinds.begin(), kinds.end() - 1,
                       [&](const Kind& kind) { return kind.name == first_word; });
}

using Ranks = std::map<std::int64_t, std::vector<TimelineSpan>>;
using Out = std::back_insert_iterator<std::string>;

struct Window {
  double begin = 0;
  double end = 0;

  bool has(const TimelineSpan& span) const { return span.end > begin && span.begin < end; }
};

// One after the other; a step inside a step is part of it.
std::vector<Window> steps_of(const std::vector<TimelineSpan>& spans) {
  std::vector<Window> steps;
  for (const TimelineSpan& span : spans) {
    if (span.name != "step" || span.overlapping) continue;
    steps.push_back({span.begin, span.end});
  }
  std::sort(steps.begin(), steps.end(),
            [](const Window& a, const Window& b) { return a.begin < b.begin; });
  std::vector<Window> outer;
  for (const Window& step : steps) {
    if (outer.empty() || step.begin >= outer.back().end) outer.push_back(step);
  }
  return outer;
}

// From the first thing that a rank does after the step before to the end of the last step.
Window window_of(const std::vector<TimelineSpan>& spans, const std::vector<Window>& steps,
                 std::size_t first, std::size_t last) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double earliest = first == 0 ? -infinity : steps[first - 1].end;
  Window window{infinity, steps[last].end};
  for (const TimelineSpan& span : spans) {
    if (span.begin >= earliest) window.begin = std::min(window.begin, span.begin);
  }
  constexpr double resolution = 1e-3;  // of the file
  window.begin = std::min(window.begin, window.end - resolution);
  return window;
}

std::size_t count_inside(const Ranks& ranks, const Window& window) {
  std::size_t count = 0;
  for (const auto& [rank, spans] : ranks) {
    count += static_cast<std::size_t>(std::count_if(
        spans.begin(), spans.end(), [&](const auto& span) { return window.has(span); }));
  }
  return count;
}

struct LastSteps {
  std::size_t complete = 0;  // on all ranks
  std::size_t count = 0;     // of these in the window
  Window window;
};

// The last steps that all ranks have completed: not more than a picture has room for, but one at
// least.
LastSteps find_last_steps(const Ranks& ranks) {
  LastSteps found;
  if (ranks.empty()) return found;
  // A rank whose program was killed may lack its last steps.
  found.complete = std::numeric_limits<std::size_t>::max();
  for (const auto& [rank, spans] : ranks) {
    found.complete = std::min(found.complete, steps_of(spans).size());
  }
  const std::vector<TimelineSpan>& spans = ranks.begin()->second;
  const std::vector<Window> steps = steps_of(spans);
  for (found.count = std::min(found.complete, most_steps); found.count > 0; --found.count) {
    found.window = window_of(spans, steps, found.complete - found.count, found.complete - 1);
    if (found.count == 1 || count_inside(ranks, found.window) <= most_bars) break;
  }
  return found;
}

// Keeps what is in the window, cut to it; of more spans than can be drawn the longest. Returns how
// many are left_margin out.
std::size_t cut_to(Ranks& ranks, const Window& window) {
  std::vector<double> lengths;
  for (auto& [rank, spans] : ranks) {
    std::erase_if(spans, [&](const TimelineSpan& span) { return !window.has(span); });
    for (TimelineSpan& span : spans) {
      span.begin = std::max(span.begin, window.begin);
      span.end = std::min(span.end, window.end);
      lengths.push_back(span.end - span.begin);
    }
  }
  if (lengths.size() <= most_bars) return 0;
  const auto shortest_kept = lengths.begin() + static_cast<std::ptrdiff_t>(most_bars - 1);
  std::nth_element(lengths.begin(), shortest_kept, lengths.end(), std::greater<>());
  std::size_t kept = 0;
  for (auto& [rank, spans] : ranks) {
    std::erase_if(spans, [&](const TimelineSpan& span) {
      return span.end - span.begin < *shortest_kept || kept++ >= most_bars;
    });
  }
  return lengths.size() - std::min(kept, most_bars);
}

class Painter {
 public:
  explicit Painter(const Window& window) : window_(window) {}

  double x(double time) const {
    return left_margin + (picture_width - left_margin - right_margin) * (time - window_.begin) /
                             (window_.end - window_.begin);
  }

  // Draws the spans of a rank from y on; returns where they end.
  double rank(std::int64_t rank, std::vector<TimelineSpan> spans, double y) {
    double waited = 0;
    for (const TimelineSpan& span : spans) {
      if (span.name == "wait") waited += span.end - span.begin;
    }
    draw_text(svg_, left_margin - 10, y + 10, "end", fmt::format("rank {}", rank),
              " font-weight=\"600\"");
    draw_text(svg_, left_margin - 10, y + 24, "end",
              fmt::format("waits {:.0f} %", 100 * waited / (window_.end - window_.begin)));
    const auto lanes = std::stable_partition(
        spans.begin(), spans.end(), [](const TimelineSpan& span) { return !span.overlapping; });
    // What is nested comes after what it is in.
    std::sort(spans.begin(), lanes, [](const TimelineSpan& a, const TimelineSpan& b) {
      return a.end - a.begin > b.end - b.begin;
    });
    for (auto span = spans.begin(); span != lanes; ++span) bar(*span, y, bar_height);
    std::sort(lanes, spans.end(),
              [](const TimelineSpan& a, const TimelineSpan& b) { return a.begin < b.begin; });
    const std::size_t count = draw_lanes(lanes, spans.end(), y + bar_height + lane_gap);
    return y + bar_height + lane_gap + static_cast<double>(count) * (lane_height + lane_gap);
  }

  std::string finish(double height) {
    const std::string bars =
        std::exchange(svg_, svg_begin(picture_width, height, timeline_font_size, "timeline"));
    draw_legend();
    draw_ticks(height - between_ranks);
    return svg_ + bars + "</svg>\n";
  }

 private:
  using Iterator = std::vector<TimelineSpan>::iterator;

  // Spans that overlap are in lanes below each other, as far as there are lanes. Returns how many
  // there are.
  std::size_t draw_lanes(Iterator begin, Iterator end, double y) {
    std::vector<double> busy_until;
    for (auto span = begin; span != end; ++span) {
      auto lane = std::find_if(busy_until.begin(), busy_until.end(),
                               [&](double time) { return time <= span->begin; });
      if (lane == busy_until.end()) {
        if (busy_until.size() < most_lanes) busy_until.push_back(0);
        lane = busy_until.end() - 1;
      }
      *lane = span->end;
      const auto index = static_cast<double>(lane - busy_until.begin());
      bar(*span, y + index * (lane_height + lane_gap), lane_height);
    }
    return busy_until.size();
  }

  void bar(const TimelineSpan& span, double y, double height) {
    const Kind& kind = kind_of(span.name);
    used_[static_cast<std::size_t>(&kind - kinds.data())] = true;
    const double x0 = x(span.begin);
    const double wide = std::max(x(span.end) - x0, 0.5);
    constexpr std::size_t longest_name = 80;
    const std::string_view name = std::string_view(span.name).substr(0, longest_name);
    fmt::format_to(Out(svg_),
                   "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\" "
                   "stroke=\"#ffffff\" stroke-width=\"0.5\"><title>rank {}, {}: {:.3f} ms from "
                   "{:.3f} ms</title></rect>\n",
                   x0, y, wide, height, kind.colour, span.rank, svg_text(name),
                   (span.end - span.begin) / 1000, (span.begin - window_.begin) / 1000);
    const std::string_view label = name.starts_with("bucket ") ? name.substr(7) : name;
    if (wide > text_width(label, timeline_font_size) + 8) {
      draw_text(svg_, x0 + wide / 2, y + height / 2 + 4, "middle", label,
                fmt::format(" fill=\"{}\" pointer-events=\"none\"", kind.text));
    }
  }

  void draw_legend() {
    double x = left_margin;
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      if (!used_[i]) continue;
      fmt::format_to(
          Out(svg_),
          "<rect x=\"{:.1f}\" y=\"14\" width=\"13\" height=\"13\" rx=\"2\" fill=\"{}\"/>\n", x,
          kinds[i].colour);
      draw_text(svg_, x + 19, 25, "start", kinds[i].name);
      x += 19 + text_width(kinds[i].name, timeline_font_size) + 22;
    }
    draw_text(svg_, picture_width - right_margin, 25, "end", "milliseconds");
  }

  void draw_ticks(double bottom) {
    for (const Tick& tick :
         make_axis(0, (window_.end - window_.begin) / 1000, {.ticks = 8}).ticks) {
      const double at = x(window_.begin + 1000 * tick.value);
      fmt::format_to(
          Out(svg_),
          "<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" stroke=\"#e4e7eb\"/>\n",
          at, top_margin - 8, bottom);
      draw_text(svg_, at, top_margin - 13, "middle", tick.label);
    }
  }

  Window window_;
  std::string svg_;
  std::array<bool, kinds.size()> used_{};
};

}  // namespace

TimelinePicture draw_last_steps(const std::vector<TimelineSpan>& spans) {
  Ranks ranks;
  for (const TimelineSpan& span : spans) ranks[span.rank].push_back(span);
  const bool with_lanes = ranks.size() <= most_ranks_with_lanes;
  for (auto& [rank, of_rank] : ranks) {
    std::erase_if(of_rank, [&](const auto& span) { return span.overlapping && !with_lanes; });
  }
  TimelinePicture picture{.svg = {}, .caption = {}, .ranks = ranks.size()};
  const LastSteps steps = find_last_steps(ranks);
  if (steps.complete == 0) {
    picture.caption = "The timeline has no step that is complete on all ranks.";
    return picture;
  }
  const Window& window = steps.window;
  picture.caption = fmt::format(
      "The last {} of {} steps that all ranks have completed: {:.3f} ms, from {:.6f} s after the "
      "timeline began.",
      steps.count, steps.complete, (window.end - window.begin) / 1e3, window.begin / 1e6);
  if (!with_lanes) {
    picture.caption +=
        fmt::format(" Of more than {} ranks, what overlaps is left out.", most_ranks_with_lanes);
  }
  if (const std::size_t dropped = cut_to(ranks, window)) {
    picture.caption += fmt::format(" The {} shortest spans are left out.", dropped);
  }
  Painter painter(window);
  double y = top_margin;
  for (auto& [rank, of_rank] : ranks) y = painter.rank(rank, of_rank, y) + between_ranks;
  picture.svg = painter.finish(y);
  return picture;
}

}  // namespace lockstep::train
