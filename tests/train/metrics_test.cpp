#include "lockstep/train/metrics.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace metrics_test {

using train::Metric;
using train::MetricRecord;
using train::MetricsLog;
using train::MetricsMode;
using train::read_metrics;
using Records = std::vector<MetricRecord>;

const std::string header = "{\"schema\": \"lockstep.metrics\", \"version\": 2}\n";

class Metrics : public ::testing::Test {
 protected:
  std::string bytes() const { return read_bytes(path_); }
  void resume(const std::string& bytes) {
    write_bytes(path_, bytes);
    MetricsLog(path_, MetricsMode::resume);
  }
  template <class Expected>
  void expect_refused(const std::string& bytes, const std::string& part) {
    const std::string message = message_of<Expected>([&] { resume(bytes); });
    EXPECT_NE(message.find(path_.string()), std::string::npos) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_EQ(read_bytes(path_), bytes);
    EXPECT_THROW(read_metrics(path_), Expected);
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "metrics.jsonl";
};

TEST_F(Metrics, writes_one_json_object_a_record_in_its_order) {
  MetricsLog log(path_);
  log.append({{"step", 100}, {"loss", 0.5}, {"split", "train"}});
  log.append({{"split", "te\"s\nt"}, {"accuracy", 1.0}, {"loss", 1e-300}});
  EXPECT_EQ(bytes(), header +
                         "{\"step\":100,\"loss\":0.5,\"split\":\"train\"}\n"
                         "{\"split\":\"te\\\"s\\nt\",\"accuracy\":1.0,\"loss\":1e-300}\n");
}

TEST_F(Metrics, reads_back_what_was_written) {
  const Records records{
      {{"step", std::numeric_limits<std::int64_t>::max()},
       {"x", std::numeric_limits<double>::min()}},
      {{"step", std::numeric_limits<std::int64_t>::min()}, {"x", 0.1 + 0.2}, {"y", -0.0}},
      {{"name", "häß\t"}, {"whole", 3.0}},
      {}};
  MetricsLog log(path_);
  for (const MetricRecord& record : records) log.append(record);
  EXPECT_EQ(read_metrics(path_), records);
}

TEST_F(Metrics, writes_numbers_that_are_not_finite_as_null_and_reads_nan) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  MetricsLog log(path_);
  log.append({{"a", std::nan("")}, {"b", infinity}, {"c", -infinity}});
  EXPECT_EQ(bytes(), header + "{\"a\":null,\"b\":null,\"c\":null}\n");
  const Records records = read_metrics(path_);
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].size(), 3U);
  for (const Metric& metric : records[0]) {
    EXPECT_TRUE(std::isnan(std::get<double>(metric.value)));
  }
}

TEST_F(Metrics, writes_lists_as_arrays_and_reads_them_back) {
  MetricsLog log(path_);
  log.append({{"waiting", std::vector{0.25, 1e-300}}, {"one", std::vector{2.0}}});
  log.append({{"none", std::vector<double>{}}, {"step", 1}});
  EXPECT_EQ(bytes(), header +
                         "{\"waiting\":[0.25,1e-300],\"one\":[2.0]}\n"
                         "{\"none\":[],\"step\":1}\n");
  EXPECT_EQ(read_metrics(path_),
            (Records{{{"waiting", std::vector{0.25, 1e-300}}, {"one", std::vector{2.0}}},
                     {{"none", std::vector<double>{}}, {"step", 1}}}));
  log.append({{"waiting", std::vector{std::nan(""), 1.0}}});
  EXPECT_NE(bytes().find("{\"waiting\":[null,1.0]}\n"), std::string::npos);
  const auto list = std::get<std::vector<double>>(read_metrics(path_)[2][0].value);
  ASSERT_EQ(list.size(), 2U);
  EXPECT_TRUE(std::isnan(list[0]));
  EXPECT_EQ(list[1], 1);
}

TEST_F(Metrics, reads_and_goes_on_with_a_file_of_version_1) {
  const std::string old = "{\"schema\": \"lockstep.metrics\", \"version\": 1}\n{\"step\":1}\n";
  write_bytes(path_, old);
  EXPECT_EQ(read_metrics(path_), (Records{{{"step", 1}}}));
  EXPECT_EQ(bytes(), old);
  { MetricsLog(path_, MetricsMode::resume).append({{"step", 2}}); }
  EXPECT_EQ(bytes(), header + "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(Metrics, replaces_an_old_file_unless_it_resumes) {
  { MetricsLog(path_).append({{"step", 1}}); }
  { MetricsLog(path_, MetricsMode::resume).append({{"step", 2}}); }
  EXPECT_EQ(read_metrics(path_), (Records{{{"step", 1}}, {{"step", 2}}}));
  { MetricsLog(path_).append({{"step", 3}}); }
  EXPECT_EQ(read_metrics(path_), (Records{{{"step", 3}}}));
}

TEST_F(Metrics, begins_a_file_on_resume_where_there_is_none) {
  { const MetricsLog log(path_, MetricsMode::resume); }
  EXPECT_EQ(bytes(), header);
}

TEST_F(Metrics, drops_a_line_torn_anywhere) {
  const std::string first = "{\"step\":1,\"loss\":0.25}\n";
  const std::string second = "{\"step\":2,\"loss\":0.125}\n";
  for (std::size_t length = 0; length < second.size() - 1; ++length) {
    const std::string torn = header + first + second.substr(0, length);
    write_bytes(path_, torn);
    EXPECT_EQ(read_metrics(path_).size(), 1U);
    EXPECT_EQ(bytes(), torn);
    { MetricsLog(path_, MetricsMode::resume).append({{"step", 3}}); }
    EXPECT_EQ(bytes(), header + first + "{\"step\":3}\n");
  }
}

TEST_F(Metrics, keeps_a_last_line_that_lacks_only_its_end) {
  write_bytes(path_, header + "{\"step\":1}");
  { MetricsLog(path_, MetricsMode::resume).append({{"step", 2}}); }
  EXPECT_EQ(bytes(), header + "{\"step\":1}\n{\"step\":2}\n");
}

TEST_F(Metrics, begins_anew_after_a_torn_header) {
  for (std::size_t length = 0; length <= header.size(); ++length) {
    resume(header.substr(0, length));
    EXPECT_EQ(bytes(), header);
  }
}

TEST_F(Metrics, refuses_other_files_and_damage_and_leaves_them_alone) {
  expect_refused<DataError>("step,loss\n1,2\n", "expected a first line {\"schema\"");
  expect_refused<DataError>("precious notes", "expected a first line {\"schema\"");
  expect_refused<DataError>("[1, 2]\n", "expected a first line {\"schema\"");
  for (const std::string version : {"3", "0", "-1", "1.5", "\"1\"", "null"}) {
    expect_refused<DataError>("{\"schema\": \"lockstep.metrics\", \"version\": " + version + "}\n",
                              "lockstep.metrics version 1 to 2, found " + version);
  }
  expect_refused<DataError>(header + "{\"step\":\n{\"step\":2}\n", "line 2: expected an object");
  for (const std::string value : {"[[1]]", "[\"a\"]", "[1,true]", "{}"}) {
    expect_refused<DataError>(header + "{\"step\":1}\n{\"a\":" + value + "}\n",
                              "line 3: expected an object");
  }
  expect_refused<DataError>(header + "{\"step\":1}\n\n", "line 3: expected an object");
  expect_refused<DataError>(header + "{\"a\":true}\n", "line 2: expected an object");
}

TEST_F(Metrics, says_which_path_cannot_be_used_and_why) {
  const auto nowhere = folder_ / "no such folder" / "metrics.jsonl";
  const std::string message = message_of<Error>([&] { MetricsLog log(nowhere); });
  EXPECT_NE(message.find(nowhere.string()), std::string::npos) << message;
  EXPECT_NE(message.find("No such file or directory"), std::string::npos) << message;
  const auto pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(MetricsLog{pipe}, Error);
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  EXPECT_THROW(read_metrics(path_), Error);
  EXPECT_THROW(read_metrics(folder_ / "."), Error);
}

TEST_F(Metrics, refuses_records_with_empty_or_repeated_names) {
  MetricsLog log(path_);
  EXPECT_THROW(log.append({{"", 1}}), NameError);
  EXPECT_THROW(log.append({{"a", 1}, {"b", 2}, {"a", 3}}), NameError);
  EXPECT_EQ(bytes(), header);
}

TEST_F(Metrics, drops_the_records_beyond_a_step) {
  MetricsLog log(path_);
  for (int step = 1; step <= 5; ++step) log.append({{"step", step}, {"loss", 1.0 / step}});
  log.append({{"epoch", 9}});
  log.append({{"step", "six"}});
  log.append({{"step", 3.5}});
  log.keep_until("step", 3);
  log.append({{"step", 4}});
  EXPECT_EQ(bytes(), header +
                         "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":0.5}\n"
                         "{\"step\":3,\"loss\":0.3333333333333333}\n"
                         "{\"epoch\":9}\n{\"step\":\"six\"}\n{\"step\":4}\n");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "metrics.jsonl.tmp"));
}

TEST_F(Metrics, keeps_the_file_where_it_cannot_write_a_new_one) {
  MetricsLog log(path_);
  log.append({{"step", 1}});
  log.append({{"step", 2}});
  const std::string before = bytes();
  std::filesystem::create_directory(folder_ / "metrics.jsonl.tmp");
  EXPECT_THROW(log.keep_until("step", 1), Error);
  EXPECT_EQ(bytes(), before);
  log.append({{"step", 3}});
  EXPECT_EQ(bytes(), before + "{\"step\":3}\n");
}

// Stands in for a disk that is full.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::size_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit tight{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &tight);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

TEST_F(Metrics, takes_back_half_a_line_when_the_disk_is_full) {
  MetricsLog log(path_);
  log.append({{"step", 1}});
  const std::string before = bytes();
  const std::string message = message_of<Error>([&] {
    const FileSizeLimit limit(before.size() + 5);
    log.append({{"step", 2}});
  });
  EXPECT_EQ(message, path_.string() + ": cannot write to it: File too large");
  EXPECT_EQ(bytes(), before);
  log.append({{"step", 2}});
  EXPECT_EQ(bytes(), before + "{\"step\":2}\n");
}

TEST_F(Metrics, leaves_no_temporary_file_when_the_disk_is_full) {
  MetricsLog log(path_);
  log.append({{"step", 1}});
  const std::string before = bytes();
  const std::string message = message_of<Error>([&] {
    const FileSizeLimit limit(10);
    log.keep_until("step", 0);
  });
  EXPECT_EQ(message, path_.string() + ": cannot write it: File too large");
  EXPECT_EQ(bytes(), before);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "metrics.jsonl.tmp"));
}

}  // namespace metrics_test
}  // namespace lockstep::testing
