#include "testing/listener.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>
#include <vector>

namespace lockstep::testing {
namespace {

void print_lines(const std::string& prefix, std::string_view lines) {
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    std::printf("%s%.*s\n", prefix.c_str(), static_cast<int>(line.size()), line.data());
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
  }
}

std::string name_of(const ::testing::TestInfo& test) {
  return std::string(test.test_suite_name()) + "." + test.name();
}

}  // namespace

void Tally::print() const {
  std::printf("%d passed, %d failed, %d skipped\n", passed.load(), failed.load(), skipped.load());
  std::fflush(stdout);
}

void Listener::OnTestSuiteStart(const ::testing::TestSuite& suite) {
  watchdog_.enter(suite.name());
}

void Listener::OnTestStart(const ::testing::TestInfo& test) { watchdog_.enter(name_of(test)); }

void Listener::OnTestPartResult(const ::testing::TestPartResult& part) {
  if (meeting_ || part.passed()) return;
  if (part.skipped()) {
    skip_reason_ = part.message();
    return;
  }
  const std::string file = part.file_name() ? part.file_name() : "exception";
  const std::string line = part.line_number() < 0 ? "" : ":" + std::to_string(part.line_number());
  watchdog_.add_failure(file + line + ": " + part.message() + "\n");
}

void Listener::OnTestEnd(const ::testing::TestInfo& test) {
  const bool skipped = test.result()->Skipped();
  const Outcome outcome = meet(test.result()->Failed(), skipped);
  const std::string time = std::to_string(test.result()->elapsed_time()) + " ms";
  if (outcome == Outcome::failed) {
    conclude("FAIL", name_of(test), time, tally_.failed);
  } else if (outcome == Outcome::skipped) {
    conclude("skip", name_of(test), skip_reason_, tally_.skipped);
  } else {
    conclude("ok  ", name_of(test), time, tally_.passed);
  }
}

// For failures before the first and after the last test of the suite.
void Listener::OnTestSuiteEnd(const ::testing::TestSuite& suite) {
  if (meet(suite.ad_hoc_test_result().Failed(), false) == Outcome::failed) {
    conclude("FAIL", suite.name(), "set-up or tear-down", tally_.failed);
  }
}

Listener::Outcome Listener::meet(bool failed, bool skipped) {
  watchdog_.wait_for_others();
  meeting_ = true;
  std::array<std::int64_t, 2> ranks{failed ? 1 : 0, skipped ? 1 : 0};
  control_.all_reduce(std::span<std::int64_t>(ranks));
  const std::vector<std::string> failures = control_.gather(watchdog_.failures());
  bool told = failed;
  for (std::size_t rank = 0; rank < failures.size(); ++rank) {
    const std::string who = "rank " + std::to_string(rank);
    print_lines("[" + who + "] ", failures[rank]);
    if (rank == 0 || failures[rank].empty()) continue;
    ADD_FAILURE_AT(who.c_str(), -1) << failures[rank];
    told = true;
  }
  watchdog_.clear_failures();
  const bool all_skipped = ranks[1] == control_.size();
  if (ranks[0] == 0 && ranks[1] > 0 && !all_skipped) {
    if (control_.rank() == 0) std::printf("skipped on some ranks only\n");
    ranks[0] = 1;
  }
  if (ranks[0] > 0 && !told) ADD_FAILURE() << "failed, or skipped, on another rank";
  meeting_ = false;
  if (ranks[0] > 0) return Outcome::failed;
  return all_skipped ? Outcome::skipped : Outcome::passed;
}

void Listener::conclude(const char* outcome, const std::string& name, const std::string& remark,
                        std::atomic<int>& counter) {
  ++counter;
  if (control_.rank() != 0) return;
  std::printf("%s %s (%s)\n", outcome, name.c_str(), remark.c_str());
  std::fflush(stdout);
}

}  // namespace lockstep::testing
