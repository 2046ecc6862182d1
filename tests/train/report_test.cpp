#include "lockstep/train/report.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "lockstep/train/metrics.hpp"
#include "train/report_page.hpp"
#include "train/run_metrics.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace report_test {

using train::ChartSeries;
using train::collect_metrics;
using train::MetricRecord;
using train::RunMetric;
using train::RunMetrics;

using Points = std::vector<std::pair<double, double>>;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

Points points_of(const std::vector<ChartSeries>& all, const std::string& name) {
  Points points;
  for (const ChartSeries& series : all) {
    if (series.name != name) continue;
    for (const auto& [x, y] : series.points) points.emplace_back(x, y);
  }
  return points;
}

std::vector<std::string> names_of(const std::vector<ChartSeries>& all) {
  std::vector<std::string> names;
  for (const ChartSeries& series : all) names.push_back(series.name);
  return names;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::string page_of(const std::vector<MetricRecord>& records) {
  return train::report_page("a run", collect_metrics(records), nullptr);
}

TEST(RunMetrics, has_a_series_for_each_split_of_a_metric) {
  const RunMetrics run = collect_metrics({{{"split", "train"}, {"step", 1}, {"loss", 0.5}},
                                          {{"split", "test"}, {"step", 1}, {"loss", 0.75}},
                                          {{"step", 3}, {"split", "train"}, {"loss", 0.25}},
                                          {{"step", 4}, {"loss", 7}}});
  ASSERT_EQ(run.metrics.size(), 1U);
  EXPECT_EQ(run.metrics[0].name, "loss");
  EXPECT_EQ(names_of(run.metrics[0].numbers), (std::vector<std::string>{"train", "test", ""}));
  EXPECT_EQ(points_of(run.metrics[0].numbers, "train"), (Points{{1, 0.5}, {3, 0.25}}));
  EXPECT_EQ(points_of(run.metrics[0].numbers, "test"), (Points{{1, 0.75}}));
  EXPECT_EQ(points_of(run.metrics[0].numbers, ""), (Points{{4, 7}}));
  EXPECT_EQ(run.last_step, 4);
  EXPECT_TRUE(std::isnan(run.last_epoch));
}

TEST(RunMetrics, draws_over_steps_or_else_epochs_or_else_records) {
  const auto x_of = [](const std::vector<MetricRecord>& records) {
    const RunMetrics run = collect_metrics(records);
    return std::pair(run.x_label, points_of(run.find("a")->numbers, ""));
  };
  EXPECT_EQ(x_of({{{"epoch", 0.5}, {"step", 7}, {"a", 1}}, {{"a", 2}}}),
            std::pair(std::string("step"), Points{{7, 1}, {7, 2}}));
  EXPECT_EQ(x_of({{{"epoch", 0.5}, {"a", 1}}, {{"epoch", 1.5}, {"a", 2}}}),
            std::pair(std::string("epoch"), Points{{0.5, 1}, {1.5, 2}}));
  EXPECT_EQ(x_of({{{"a", 1}}, {{"b", 1}}, {{"a", 2}}}),
            std::pair(std::string("record"), Points{{1, 1}, {3, 2}}));
}

TEST(RunMetrics, knows_the_units_of_some_names) {
  const RunMetrics run = collect_metrics(
      {{{"accuracy", 0.25}, {"other", 0.25}, {"waiting", std::vector{0.5, 0.125}}}});
  EXPECT_EQ(run.find("accuracy")->title, "accuracy (%)");
  EXPECT_EQ(points_of(run.find("accuracy")->numbers, ""), (Points{{1, 25}}));
  EXPECT_EQ(points_of(run.find("other")->numbers, ""), (Points{{1, 0.25}}));
  EXPECT_EQ(points_of(run.find("waiting")->lists, "rank 0"), (Points{{1, 50}}));
  EXPECT_EQ(points_of(run.find("waiting")->lists, "rank 1"), (Points{{1, 12.5}}));
  EXPECT_EQ(run.ranks, 2U);
  EXPECT_EQ(run.find("none"), nullptr);
}

TEST(RunMetrics, summarises_long_lists) {
  std::vector<double> list;
  for (const int i : {8, 3, 1, 9, 4, 10, 2, 6, 7, 5}) list.push_back(i);
  list.push_back(nan);
  const RunMetrics run = collect_metrics({{{"x", list}},
                                          {{"x", std::vector<double>(9, nan)}},
                                          {{"x", std::vector{1.0, 2.0}}, {"split", "test"}}});
  const std::vector<ChartSeries>& lists = run.find("x")->lists;
  EXPECT_EQ(names_of(lists),
            (std::vector<std::string>{"greatest", "median", "least", "test, 0", "test, 1"}));
  EXPECT_EQ(points_of(lists, "greatest"), (Points{{1, 10}}));
  EXPECT_EQ(points_of(lists, "median"), (Points{{1, 5.5}}));
  EXPECT_EQ(points_of(lists, "least"), (Points{{1, 1}}));
}

TEST(ReportPage, tells_the_last_the_lowest_and_the_highest_value_and_marks_the_best) {
  const std::string page = page_of({{{"step", 1}, {"loss", 0.5}, {"accuracy", 0.5}, {"n", 10}},
                                    {{"step", 2}, {"loss", 0.125}, {"accuracy", 0.75}},
                                    {{"step", 1234}, {"loss", 0.25}, {"accuracy", 0.625}}});
  EXPECT_TRUE(has(page,
                  "<th scope=\"row\">loss</th><td></td><td>0.25</td>"
                  "<td class=\"best\">0.125 <small>at 2</small></td>"
                  "<td>0.5 <small>at 1</small></td>"))
      << page;
  EXPECT_TRUE(has(page,
                  "<th scope=\"row\">accuracy (%)</th><td></td><td>62.5</td>"
                  "<td>50 <small>at 1</small></td>"
                  "<td class=\"best\">75 <small>at 2</small></td>"));
  EXPECT_TRUE(has(page, "<td>10 <small>at 1</small></td><td>10 <small>at 1</small></td>"));
  EXPECT_TRUE(has(page, "<dt>steps</dt><dd>1234</dd>"));
  EXPECT_FALSE(has(page, "<dt>epochs"));
}

TEST(ReportPage, leaves_what_is_not_finite_out_of_the_summary) {
  const std::string page = page_of({{{"loss", nan}}, {{"loss", 2.5}}, {{"loss", nan}}});
  EXPECT_TRUE(has(page, "<td>NaN</td><td class=\"best\">2.5 <small>at 2</small></td>")) << page;
  EXPECT_TRUE(has(page_of({{{"loss", nan}}}), "The metrics have no numbers."));
}

TEST(ReportPage, tells_the_mean_throughput_the_ranks_and_texts) {
  const std::string page = page_of({{{"samples_per_second", 50000.0}, {"rule", "SGD"}},
                                    {{"samples_per_second", nan}},
                                    {{"samples_per_second", 60001}, {"rule", "Adam"}},
                                    {{"waiting", std::vector{0.1, 0.2, 0.3}}, {"epoch", 2.5}}});
  EXPECT_TRUE(has(page, "<dt>samples/s, mean</dt><dd>55000</dd>")) << page;
  EXPECT_TRUE(has(page, "<dt>ranks</dt><dd>3</dd>"));
  EXPECT_TRUE(has(page, "<dt>epochs</dt><dd>2.5</dd>"));
  EXPECT_TRUE(has(page, "<dt>rule</dt><dd>Adam</dd>"));
  EXPECT_FALSE(has(page, "SGD"));
}

TEST(ReportPage, says_what_there_is_no_data_for) {
  for (const std::vector<MetricRecord>& records :
       {std::vector<MetricRecord>{}, {{{"waiting", std::vector<double>{}}}}}) {
    const std::string page = page_of(records);
    for (const char* text : {"no numbers", "have none", "no “lr”", "no “samples_per_second”",
                             "no “waiting”", "There is no timeline"}) {
      EXPECT_TRUE(has(page, text)) << text;
    }
    EXPECT_FALSE(has(page, "<svg"));
  }
}

TEST(ReportPage, draws_so_many_metrics_and_names_the_others) {
  MetricRecord record;
  for (int i = 0; i < 63; ++i) record.push_back({"norm <" + std::to_string(i), 1.0});
  const std::string page = page_of({record});
  EXPECT_TRUE(has(page, "3 more metrics have no picture: norm &lt;60, norm &lt;61, norm &lt;62<"));
  EXPECT_TRUE(has(page, "<figure aria-label=\"norm &lt;59\">"));
  EXPECT_FALSE(has(page, "<figure aria-label=\"norm &lt;60\">"));
}

TEST(ReportPage, escapes_whatever_comes_from_files) {
  const std::string nasty = "\"></svg></style><script>alert(1)</script><!--";
  std::string page = train::report_page(
      nasty,
      collect_metrics({{{nasty, 1.0}, {"split", nasty}},
                       {{"text " + nasty, nasty}, {"l" + nasty, std::vector{1.0, 2.0}}}}),
      nullptr);
  EXPECT_FALSE(has(page, "<script"));
  EXPECT_FALSE(has(page, "<!--"));
  EXPECT_FALSE(has(page, "\"\"></svg>"));
  EXPECT_TRUE(has(page, "&lt;script&gt;alert(1)"));
}

class WriteReport : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directory(run_);
    train::MetricsLog log(run_ / "metrics.jsonl");
    log.append({{"step", 1}, {"loss", 0.5}});
  }
  void expect_refused(const std::string& part, const train::ReportOptions& options = {}) {
    const std::string message = message_of<Error>([&] { train::write_report(run_, options); });
    EXPECT_TRUE(has(message, part)) << message;
    EXPECT_FALSE(std::filesystem::exists(run_ / "report.html"));
  }

  TemporaryFolder folder_;
  std::filesystem::path run_ = folder_ / "my run";
};

const std::string timeline =
    "[\n{\"name\":\"step\",\"ph\":\"X\",\"ts\":5,\"dur\":2,\"pid\":0,\"tid\":0},\n";

TEST_F(WriteReport, makes_a_page_in_the_folder_or_elsewhere) {
  EXPECT_EQ(train::write_report(run_), run_ / "report.html");
  const std::string page = read_bytes(run_ / "report.html");
  EXPECT_TRUE(has(page, "<h1>my run</h1>"));
  EXPECT_TRUE(has(page, "There is no timeline"));
  EXPECT_EQ(train::write_report(run_ / "", {.out = folder_ / "page"}), folder_ / "page");
  EXPECT_EQ(read_bytes(folder_ / "page"), page);
}

TEST_F(WriteReport, takes_the_timeline_of_the_folder_or_another) {
  write_bytes(folder_ / "other.json", timeline);
  train::write_report(run_, {.out = {}, .timeline = folder_ / "other.json"});
  const std::string page = read_bytes(run_ / "report.html");
  EXPECT_TRUE(has(page, "rank 0, step: 0.002 ms"));
  write_bytes(run_ / "timeline.json", timeline);
  train::write_report(run_);
  EXPECT_EQ(read_bytes(run_ / "report.html"), page);
}

TEST_F(WriteReport, says_what_is_missing_or_damaged) {
  expect_refused("other.json: cannot open it: No such file",
                 {.out = {}, .timeline = folder_ / "other.json"});
  write_bytes(run_ / "timeline.json", "[{]");
  expect_refused("timeline.json: no timeline: ");
  std::filesystem::remove(run_ / "timeline.json");
  write_bytes(run_ / "metrics.jsonl", read_bytes(run_ / "metrics.jsonl") + "x\n");
  expect_refused("metrics.jsonl: line 3: expected an object");
  std::filesystem::remove(run_ / "metrics.jsonl");
  expect_refused("metrics.jsonl: cannot open it: No such file");
  std::filesystem::remove(run_);
  expect_refused("my run: expected the folder of a run, found nothing");
  write_bytes(run_, "");
  expect_refused("my run: expected the folder of a run, found a file");
}

}  // namespace report_test
}  // namespace lockstep::testing
