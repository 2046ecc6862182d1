#include "testing/selection.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

namespace lockstep::testing {
namespace {

// Of each test file.
std::map<std::string, std::set<int>>& declared_ranks() {
  static std::map<std::string, std::set<int>> files;
  return files;
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

std::string join(const std::set<int>& counts) {
  std::string text;
  for (const int count : counts) text += (text.empty() ? "" : " ") + std::to_string(count);
  return text;
}

struct Selection {
  std::string filter;
  bool any = false;
};

Selection selection(int size, int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::vector<std::string> only = lines_of(variable("LOCKSTEP_TEST_ONLY"));
  const std::string program = variable("LOCKSTEP_TEST_NAME") + ": ";
  std::string left_out;
  Selection selected;
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
      selected.any = selected.any || named;
      if (!named || !has_any_of(description, only)) left_out += ":" + name;
    }
  }
  selected.filter = GTEST_FLAG_GET(filter);
  if (selected.filter.find('-') == std::string::npos) selected.filter += ":-";
  selected.filter += left_out;
  return selected;
}

std::int32_t seed_of_now() { return static_cast<std::int32_t>(std::time(nullptr) % 99999 + 1); }

}  // namespace

DeclaredRanks::DeclaredRanks(const char* file, std::initializer_list<int> counts) {
  declared_ranks()[file] = counts;
}

void print_declared_ranks() {
  std::set<int> all;
  for (const auto& [file, counts] : declared_ranks()) all.insert(counts.begin(), counts.end());
  std::printf("%s\n", join(all).c_str());
}

bool select_tests(const Communicator& ranks, int argc, char** argv) {
  const std::int64_t tests = ::testing::UnitTest::GetInstance()->total_test_count();
  const std::int64_t most = ranks.all_reduce(tests, ReduceOp::max);
  ranks.agree([&] {
    if (tests != most) {
      throw StateError("all ranks must have the same tests: this one has " + std::to_string(tests) +
                       ", another one " + std::to_string(most));
    }
  });
  Selection selected = selection(ranks.size(), argc, argv);
  ranks.broadcast(selected.filter);
  GTEST_FLAG_SET(filter, selected.filter);
  // The framework would take the time as the seed, which differs by rank.
  std::int32_t seed = GTEST_FLAG_GET(random_seed);
  if (GTEST_FLAG_GET(shuffle) && seed == 0) seed = seed_of_now();
  std::array<std::int64_t, 6> flags{selected.any,
                                    GTEST_FLAG_GET(shuffle),
                                    seed,
                                    GTEST_FLAG_GET(repeat),
                                    GTEST_FLAG_GET(also_run_disabled_tests),
                                    GTEST_FLAG_GET(fail_fast)};
  ranks.broadcast(std::span<std::int64_t>(flags));
  GTEST_FLAG_SET(shuffle, flags[1] != 0);
  GTEST_FLAG_SET(random_seed, static_cast<std::int32_t>(flags[2]));
  GTEST_FLAG_SET(repeat, static_cast<std::int32_t>(flags[3]));
  GTEST_FLAG_SET(also_run_disabled_tests, flags[4] != 0);
  GTEST_FLAG_SET(fail_fast, flags[5] != 0);
  if (ranks.rank() == 0 && flags[1] != 0) std::printf("--gtest_random_seed=%d\n", seed);
  if (ranks.rank() == 0 && !selected.any) {
    std::printf("no test of that name runs on %d ranks\n", ranks.size());
    for (const auto& [file, counts] : declared_ranks()) {
      std::printf("  %s: on %s ranks\n", file.c_str(), join(counts).c_str());
    }
  }
  return flags[0] != 0;
}

}  // namespace lockstep::testing
