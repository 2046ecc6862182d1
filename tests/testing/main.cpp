#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/comm/environment.hpp"
#include "testing/mpi_test.hpp"
#include "testing/watchdog.hpp"

namespace lockstep::testing {
namespace {

// Of each test file.
std::map<std::string, std::set<int>>& declared_ranks() {
  static std::map<std::string, std::set<int>> files;
  return files;
}

std::optional<Communicator> test_world;

// Read by the watchdog's thread.
struct Tally {
  std::atomic<int> passed = 0;
  std::atomic<int> failed = 0;
  std::atomic<int> skipped = 0;

  void print() const {
    std::printf("%d passed, %d failed, %d skipped\n", passed.load(), failed.load(), skipped.load());
    std::fflush(stdout);
  }
};

void print_lines(const std::string& prefix, std::string_view lines) {
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    std::printf("%s%.*s\n", prefix.c_str(), static_cast<int>(line.size()), line.data());
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
  }
}

// After each test, brings the ranks together to say which of them failed.
class Listener : public ::testing::EmptyTestEventListener {
 public:
  // `control` is apart from world(), so that what a test left unreceived there does no harm here.
  Listener(Communicator control, Watchdog& watchdog, Tally& tally)
      : control_(control), watchdog_(watchdog), tally_(tally) {}

  void OnTestSuiteStart(const ::testing::TestSuite& suite) override {
    watchdog_.enter(suite.name());
  }

  void OnTestStart(const ::testing::TestInfo& test) override { watchdog_.enter(name_of(test)); }

  void OnTestPartResult(const ::testing::TestPartResult& part) override {
    if (meeting_ || part.passed()) return;
    if (part.skipped()) {
      skip_reason_ = part.message();
      return;
    }
    const std::string file = part.file_name() ? part.file_name() : "exception";
    const std::string line = part.line_number() < 0 ? "" : ":" + std::to_string(part.line_number());
    watchdog_.add_failure(file + line + ": " + part.message() + "\n");
  }

  void OnTestEnd(const ::testing::TestInfo& test) override {
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
  void OnTestSuiteEnd(const ::testing::TestSuite& suite) override {
    if (meet(suite.ad_hoc_test_result().Failed(), false) == Outcome::failed) {
      conclude("FAIL", suite.name(), "set-up or tear-down", tally_.failed);
    }
  }

 private:
  enum class Outcome { passed, failed, skipped };

  static std::string name_of(const ::testing::TestInfo& test) {
    return std::string(test.test_suite_name()) + "." + test.name();
  }

  Outcome meet(bool failed, bool skipped) {
    watchdog_.wait_for_others();
    meeting_ = true;
    std::array<std::int64_t, 2> ranks{failed ? 1 : 0, skipped ? 1 : 0};
    control_.all_reduce(std::span<std::int64_t>(ranks));
    const std::vector<std::string> failures = control_.gather(watchdog_.failures());
    for (std::size_t rank = 0; rank < failures.size(); ++rank) {
      print_lines("[rank " + std::to_string(rank) + "] ", failures[rank]);
    }
    watchdog_.clear_failures();
    const bool all_skipped = ranks[1] == control_.size();
    if (ranks[0] == 0 && ranks[1] > 0 && !all_skipped) {
      if (control_.rank() == 0) std::printf("skipped on some ranks only\n");
      ranks[0] = 1;
    }
    if (ranks[0] > 0 && !failed) ADD_FAILURE() << "failed on another rank";
    meeting_ = false;
    if (ranks[0] > 0) return Outcome::failed;
    return all_skipped ? Outcome::skipped : Outcome::passed;
  }

  void conclude(const char* outcome, const std::string& name, const std::string& remark,
                std::atomic<int>& counter) {
    ++counter;
    if (control_.rank() != 0) return;
    std::printf("%s %s (%s)\n", outcome, name.c_str(), remark.c_str());
    std::fflush(stdout);
  }

  Communicator control_;
  Watchdog& watchdog_;
  Tally& tally_;
  std::string skip_reason_;
  bool meeting_ = false;
};

// MPI's own handler ends the job as well, but its message is lost under mpirun -q. SIGABRT is
// reported by the watchdog. Duplicates inherit this, so that a missing MPI_ERRORS_RETURN still
// shows.
void abort_on_error(MPI_Comm*, int* code, ...) {
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(*code, text, &length);
  std::fprintf(stderr, "MPI error that nobody handles: %s\n", text);
  std::abort();
}

std::string variable(const char* name) {
  const char* text = std::getenv(name);
  return text ? text : "";
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool has_any_of(const std::string& text, const std::vector<std::string>& words) {
  return words.empty() || std::any_of(words.begin(), words.end(), [&](const std::string& word) {
           return text.find(word) != std::string::npos;
         });
}

// Where a test comes from a file without a declaration, such as a manual, any in the program counts.
bool runs_on(const std::string& file, int ranks) {
  const auto& files = declared_ranks();
  if (const auto found = files.find(file); found != files.end())
    return found->second.contains(ranks);
  return std::any_of(files.begin(), files.end(),
                     [&](const auto& entry) { return entry.second.contains(ranks); });
}

// "comm/agree_test.cpp"
std::string short_path(const std::filesystem::path& file) {
  return file.parent_path().filename() / file.filename();
}

// Leaves out the tests of files that do not run on so many ranks, and those that are not asked for:
// "LOCKSTEP_TEST_NAME: FILE: SUITE.NAME" has to contain one of the arguments, and a line of
// LOCKSTEP_TEST_ONLY, where SUITE is that of all its types. Returns whether the arguments leave any.
bool select_tests(int size, int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::vector<std::string> only = lines_of(variable("LOCKSTEP_TEST_ONLY"));
  const std::string program = variable("LOCKSTEP_TEST_NAME") + ": ";
  std::string left_out;
  bool any = false;
  const ::testing::UnitTest& framework = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < framework.total_test_suite_count(); ++i) {
    const ::testing::TestSuite& suite = *framework.GetTestSuite(i);
    const std::string title = suite.name();
    const std::string family = title.substr(0, title.find('/'));
    for (int k = 0; k < suite.total_test_count(); ++k) {
      const ::testing::TestInfo& test = *suite.GetTestInfo(k);
      const std::string name = title + "." + test.name();
      const std::string description =
          program + short_path(test.file()) + ": " + family + "." + test.name();
      const bool named = runs_on(test.file(), size) && has_any_of(description, arguments);
      any = any || named;
      if (!named || !has_any_of(description, only)) left_out += ":" + name;
    }
  }
  std::string filter = GTEST_FLAG_GET(filter);
  if (filter.find('-') == std::string::npos) filter += ":-";
  GTEST_FLAG_SET(filter, filter + left_out);
  return any;
}

std::string join(const std::set<int>& counts) {
  std::string text;
  for (const int count : counts) text += " " + std::to_string(count);
  return text;
}

int run_tests(int& argc, char**& argv) {
  Tally tally;
  int rank = 0;
  Watchdog watchdog([&] {
    ++tally.failed;
    if (rank == 0) tally.print();
  });
  const mpi::Environment mpi(argc, argv);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(abort_on_error, &handler);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, handler);
  MPI_Errhandler_free(&handler);
  test_world.emplace(MPI_COMM_WORLD);
  Communicator control(MPI_COMM_WORLD);
  rank = control.rank();
  watchdog.set_rank(rank);
  if (!select_tests(control.size(), argc, argv)) {
    if (rank != 0) return 2;
    std::printf("no test of that name runs on %d ranks\n", control.size());
    for (const auto& [file, counts] : declared_ranks()) {
      std::printf("  %s: on%s ranks\n", file.c_str(), join(counts).c_str());
    }
    ++tally.failed;
    tally.print();
    return 2;
  }

  if (GTEST_FLAG_GET(shuffle) && GTEST_FLAG_GET(random_seed) == 0) {
    // The framework would take the time, which differs by rank.
    const std::int64_t time = control.all_reduce(std::int64_t{std::time(nullptr)}, ReduceOp::max);
    GTEST_FLAG_SET(random_seed, static_cast<std::int32_t>(time % 99999 + 1));
    if (rank == 0) std::printf("--gtest_random_seed=%d\n", GTEST_FLAG_GET(random_seed));
  }
  ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
  delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new Listener(control, watchdog, tally));
  std::int64_t status = RUN_ALL_TESTS();

  watchdog.enter_other("the end of the program");
  status = control.all_reduce(status, ReduceOp::max);
  if (status != 0 && tally.failed == 0) ++tally.failed;
  if (rank == 0) tally.print();
  control.close();
  test_world->close();
  return static_cast<int>(status);
}

}  // namespace

DeclaredRanks::DeclaredRanks(const char* file, std::initializer_list<int> counts) {
  declared_ranks()[file] = counts;
}

const Communicator& world() { return test_world.value(); }

}  // namespace lockstep::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  // Checkpoints have the time of their save, by which no two have the same bytes.
  setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
  return lockstep::testing::run_tests(argc, argv);
}
