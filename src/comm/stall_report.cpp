#include "comm/stall_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "comm/place.hpp"

namespace lockstep::comm {
namespace {

constexpr std::size_t most_functions = 12;

}  // namespace

std::string list_ranks(const std::vector<const RankState*>& group) {
  std::string text;
  for (std::size_t begin = 0; begin < group.size();) {
    std::size_t end = begin + 1;
    while (end < group.size() && group[end]->rank == group[end - 1]->rank + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", group[begin]->rank);
    if (end - begin > 1) {
      text += fmt::format("{}{}", end - begin == 2 ? ", " : "-", group[end - 1]->rank);
    }
    begin = end;
  }
  return fmt::format("rank{} {}", group.size() == 1 ? "" : "s", text);
}

std::string describe_stack(const std::vector<std::string>& stack) {
  std::string text;
  for (std::size_t i = 0; i < std::min(stack.size(), most_functions); ++i) {
    text += fmt::format("      at {}\n", stack[i]);
  }
  return text;
}

namespace {

// Tenths of the first second.
double round(double seconds) {
  return seconds < 1 ? std::round(seconds * 10) / 10 : std::round(seconds);
}

std::string describe_group(const std::vector<const RankState*>& group) {
  const RankState& first = *group.front();
  const bool one = group.size() == 1;
  std::string text = fmt::format("  {} on {}", list_ranks(group), first.host);
  if (!first.answers) {
    return text + fmt::format(" {} not answer{}{}\n", one ? "does" : "do",
                              first.what.empty() ? "" : ": ", first.what);
  }
  if (first.steps > 0) text += fmt::format(", {},", describe_steps(first.steps));
  if (!first.what.empty()) {
    double longest = 0;
    for (const RankState* rank : group) longest = std::max(longest, rank->seconds);
    return text +
           fmt::format(" wait{} for {}, since {} s\n", one ? "s" : "", first.what, round(longest));
  }
  text += fmt::format(" {} in code of {} own\n", one ? "is" : "are", one ? "its" : "their");
  return text + describe_stack(first.stack);
}

bool is_alike(const RankState& a, const RankState& b) {
  return a.host == b.host && a.what == b.what && a.steps == b.steps && a.answers == b.answers &&
         a.stack == b.stack;
}

}  // namespace

std::string describe_ranks(std::string_view headline, const std::vector<RankState>& ranks) {
  std::vector<std::vector<const RankState*>> groups;
  for (const RankState& rank : ranks) {
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return is_alike(*group.front(), rank);
    });
    if (same == groups.end()) {
      groups.push_back({&rank});
    } else {
      same->push_back(&rank);
    }
  }
  std::string text = fmt::format("{}\n", headline);
  for (const auto& group : groups) text += describe_group(group);
  return text;
}

}  // namespace lockstep::comm
