#include "train/progress_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace lockstep::train {
namespace {

constexpr std::size_t gap = 2;
constexpr std::size_t min_bar = 7;
constexpr std::size_t max_bar = 42;

bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

// Columns of a UTF-8 text, each character counted as one.
std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts_character));
}

std::string_view cut(std::string_view text, std::size_t columns) {
  std::size_t end = 0;
  while (end < text.size() && (columns > 0 || !starts_character(text[end]))) {
    if (starts_character(text[end])) --columns;
    ++end;
  }
  return text.substr(0, end);
}

std::string duration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "--:--";
  const auto total = static_cast<std::int64_t>(std::floor(seconds + 0.5));
  if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
  return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

// Items a second since the start; 0 where it cannot be told yet.
double rate(const ProgressReport& report) {
  const double items = static_cast<double>(report.done - report.initial);
  return items > 0 && report.seconds > 0 ? items / report.seconds : 0;
}

std::string rate_text(const ProgressReport& report) {
  double number = rate(report);
  if (number <= 0) return fmt::format("-- {}/s", report.unit);
  constexpr std::array<std::string_view, 5> suffixes{"", "k", "M", "G", "T"};
  std::size_t suffix = 0;
  while (number >= 999.5 && suffix + 1 < suffixes.size()) {
    number /= 1000;
    ++suffix;
  }
  const int decimals = number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{} {}/s", number, decimals, suffixes[suffix], report.unit);
}

std::string left_text(const ProgressReport& report) {
  if (report.total == 0) return {};
  const double items = static_cast<double>(std::max<std::int64_t>(0, report.total - report.done));
  const double speed = rate(report);
  const double unknown = std::numeric_limits<double>::infinity();
  return duration(speed > 0 ? items / speed : unknown) + " left";
}

std::string waiting_text(const ProgressReport& report) {
  return std::isnan(report.waiting) ? "" : fmt::format("wait {:.0f} %", 100 * report.waiting);
}

double fraction(const ProgressReport& report) {
  const double done = static_cast<double>(report.done) / static_cast<double>(report.total);
  return std::clamp(done, 0.0, 1.0);
}

std::string count_text(const ProgressReport& report) {
  if (report.total == 0 || report.done == report.total) {
    return fmt::format("{} {}", report.done, report.unit);
  }
  return fmt::format("{}/{} {}", report.done, report.total, report.unit);
}

// Rounded down: 100 % is for what is done.
std::string percent_text(const ProgressReport& report) {
  return fmt::format("{:3.0f}%", std::floor(100 * fraction(report)));
}

std::string bar(double fraction, std::size_t columns) {
  const std::size_t inner = columns - 2;
  const auto full = static_cast<std::size_t>(fraction * static_cast<double>(inner));
  std::string cells = std::string(full, '=') + (full < inner ? ">" : "");
  cells.resize(inner, ' ');
  return "[" + cells + "]";
}

struct Part {
  std::string text;
  int priority = 0;  // the lowest is the last to go
  bool may_be_cut = false;
};

// The parts, in their order, of which those of the lowest numbers go first where there is no room.
// Reports the columns that are left over.
std::string compose(std::vector<Part> parts, std::size_t columns,
                    std::size_t* left_over = nullptr) {
  std::vector<std::size_t> order(parts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](auto a, auto b) { return parts[a].priority < parts[b].priority; });
  std::size_t room = columns;
  bool first = true;
  for (const std::size_t index : order) {
    Part& part = parts[index];
    if (part.text.empty()) continue;
    const std::size_t space = first ? 0 : gap;
    constexpr std::size_t shortest_cut = 4;
    if (part.may_be_cut && room >= space + shortest_cut) part.text = cut(part.text, room - space);
    if (columns_of(part.text) + space > room) {
      part.text.clear();
      continue;
    }
    room -= columns_of(part.text) + space;
    first = false;
  }
  std::string line;
  for (const Part& part : parts) {
    if (part.text.empty()) continue;
    if (!line.empty()) line.append(gap, ' ');
    line += part.text;
  }
  if (left_over != nullptr) *left_over = room;
  return line;
}

}  // namespace

std::string bar_line(const ProgressReport& report, std::size_t columns) {
  if (report.total == 0) {
    return compose({{std::string(report.label), 2, true},
                    {count_text(report), 1},
                    {rate_text(report), 4},
                    {waiting_text(report), 5},
                    {std::string(report.text), 3, true}},
                   columns);
  }
  const auto line = [&](const std::string& percent, std::size_t* left_over) {
    return compose({{std::string(report.label), 2, true},
                    {percent, 1},
                    {rate_text(report), 5},
                    {waiting_text(report), 6},
                    {left_text(report), 4},
                    {std::string(report.text), 3, true}},
                   columns, left_over);
  };
  std::size_t room = 0;
  const std::string percent = percent_text(report);
  const std::string without_bar = line(percent, &room);
  if (room < min_bar + 1) return without_bar;
  return line(percent + " " + bar(fraction(report), std::min(room - 1, max_bar)), nullptr);
}

std::string log_line(const ProgressReport& report) {
  const std::string label = report.label.empty() ? "" : std::string(report.label) + ":";
  return compose({{label},
                  {count_text(report)},
                  {report.total == 0 ? "" : percent_text(report)},
                  {rate_text(report)},
                  {waiting_text(report)},
                  {left_text(report)},
                  {std::string(report.text)}},
                 std::numeric_limits<std::size_t>::max());
}

std::string final_line(const ProgressReport& report, std::size_t columns) {
  const std::string label = report.label.empty() ? "" : std::string(report.label) + ":";
  return compose({{label, 2, true},
                  {count_text(report) + " in " + duration(report.seconds), 1, true},
                  {rate_text(report), 4},
                  {waiting_text(report), 5},
                  {std::string(report.text), 3, true}},
                 columns);
}

}  // namespace lockstep::train
