#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "lockstep/comm/communicator.hpp"
#include "testing/watchdog.hpp"

namespace lockstep::testing {

/// Read by the watchdog's thread.
struct Tally {
  std::atomic<int> passed = 0;
  std::atomic<int> failed = 0;
  std::atomic<int> skipped = 0;

  void print() const;
};

/// After each test, brings the ranks together to say which of them failed. Rank 0 prints the failures of all, and has them
/// in its own results.
class Listener : public ::testing::EmptyTestEventListener {
 public:
  /// `control` is apart from world(), so that what a test left unreceived there does no harm here.
  Listener(Communicator control, Watchdog& watchdog, Tally& tally)
      : control_(control), watchdog_(watchdog), tally_(tally) {}

  void OnTestSuiteStart(const ::testing::TestSuite& suite) override;
  void OnTestStart(const ::testing::TestInfo& test) override;
  void OnTestPartResult(const ::testing::TestPartResult& part) override;
  void OnTestEnd(const ::testing::TestInfo& test) override;
  void OnTestSuiteEnd(const ::testing::TestSuite& suite) override;

 private:
  enum class Outcome { passed, failed, skipped };

  Outcome meet(bool failed, bool skipped);
  void conclude(const char* outcome, const std::string& name, const std::string& remark,
                std::atomic<int>& counter);

  Communicator control_;
  Watchdog& watchdog_;
  Tally& tally_;
  std::string skip_reason_;
  bool meeting_ = false;
};

}  // namespace lockstep::testing
