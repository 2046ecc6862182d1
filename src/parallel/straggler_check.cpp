#include "lockstep/parallel/straggler_check.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "comm/drift.hpp"
#include "comm/place.hpp"
#include "core/named_hash.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"

namespace lockstep {

StragglerCheck::StragglerCheck(const GradientReducer& reducer, const StragglerOptions& options)
    : reducer_(&reducer), communicator_(reducer.communicator()), options_(options) {
  communicator_.agree([&] {
    if (options_.every < 1) {
      throw OptionError(
          fmt::format("straggler check: expected every >= 1, found {}", options_.every));
    }
    if (!(options_.lost > 0 && options_.lost < 1)) {
      throw OptionError(
          fmt::format("straggler check: expected 0 < lost < 1, found {}", options_.lost));
    }
  });
  const std::string difference =
      comm::find_drift(communicator_, {{"every", static_cast<std::uint64_t>(options_.every)},
                                       {fmt::format("lost = {}", options_.lost)}});
  if (!difference.empty()) {
    throw_collective({ErrorKind::option,
                      fmt::format("the ranks look for stragglers differently: {}", difference)});
  }
  waited_ = reducer_->waited();
  since_ = Clock::now();
}

bool StragglerCheck::step() { return ++steps_ % options_.every == 0 && !check().empty(); }

const std::vector<Straggler>& StragglerCheck::check() {
  const Clock::time_point now = Clock::now();
  const auto ranks = static_cast<std::size_t>(communicator_.size());
  const auto rank = static_cast<std::size_t>(communicator_.rank());
  std::vector<double> sums;  // the seconds that each rank has waited, and that have passed for all
  std::vector<int> before;
  communicator_.agree([&] {
    sums.assign(ranks + 1, 0);
    for (const Straggler& one : stragglers_) before.push_back(one.rank);
  });
  sums[rank] = reducer_->waited() - waited_;
  sums[ranks] = std::chrono::duration<double>(now - since_).count();
  communicator_.all_reduce(std::span(sums));
  waited_ = reducer_->waited();
  since_ = now;
  const double seconds = sums.back() / static_cast<double>(ranks);
  sums.pop_back();
  find(sums, seconds);
  for (Straggler& one : stragglers_) {
    communicator_.agree([&] { one.host = comm::Place::host(); });
    communicator_.broadcast(one.host, one.rank);
  }
  communicator_.agree([&] { report(before); });
  return stragglers_;
}

void StragglerCheck::find(const std::vector<double>& waited, double seconds) {
  const double all = std::accumulate(waited.begin(), waited.end(), 0.0);
  const auto others = static_cast<double>(waited.size() - 1);
  communicator_.agree([&] {
    stragglers_.clear();
    for (std::size_t rank = 0; rank < waited.size() && others > 0 && seconds > 0; ++rank) {
      const double of_others = (all - waited[rank]) / others;
      const double for_it = of_others - waited[rank];
      if (for_it < options_.lost * seconds) continue;
      stragglers_.push_back({.rank = static_cast<int>(rank),
                             .host = {},
                             .lost = for_it / seconds,
                             .share = for_it / of_others});
    }
    std::stable_sort(stragglers_.begin(), stragglers_.end(),
                     [](const auto& a, const auto& b) { return a.lost > b.lost; });
  });
}

void StragglerCheck::report(const std::vector<int>& before) const {
  if (communicator_.rank() != 0 || stragglers_.empty()) return;
  const bool known = std::all_of(stragglers_.begin(), stragglers_.end(), [&](const Straggler& one) {
    return std::find(before.begin(), before.end(), one.rank) != before.end();
  });
  if (known) return;
  std::vector<std::string> parts;
  for (const Straggler& one : stragglers_) {
    parts.push_back(fmt::format(
        "rank {} on {} is slow: the others have waited for it {:.0f} % of their time, which is "
        "{:.0f} % of all that they have waited",
        one.rank, one.host, 100 * one.lost, 100 * one.share));
  }
  log(LogLevel::warning, fmt::format("{}", fmt::join(parts, "; ")));
}

}  // namespace lockstep
