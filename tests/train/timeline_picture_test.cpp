#include "train/timeline_picture.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/property_tree/xml_parser.hpp>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "train/timeline_file.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace timeline_picture_test {

using train::draw_last_steps;
using train::read_timeline;
using train::TimelinePicture;
using train::TimelineSpan;

using Spans = std::vector<TimelineSpan>;

Spans read(const std::string& text) {
  const TemporaryFolder folder;
  write_bytes(folder / "timeline.json", text);
  return read_timeline(folder / "timeline.json");
}

TEST(TimelineFile, has_what_a_program_records) {
  const TemporaryFolder folder;
  const auto path = folder / "timeline.json";
  write_bytes(path, "[\n");
  timeline::start(path, 3);
  timeline::record("forward", 1.5, 2.25);
  timeline::record_overlapping("bucket 7", 2, 8);
  timeline::stop();
  const Spans spans = read_timeline(path);
  ASSERT_EQ(spans.size(), 2U);
  for (const TimelineSpan& span : spans) EXPECT_EQ(span.rank, 3);
  EXPECT_EQ(spans[0].name, "forward");
  EXPECT_EQ(spans[0].begin, 1.5);
  EXPECT_EQ(spans[0].end, 2.25);
  EXPECT_FALSE(spans[0].overlapping);
  EXPECT_EQ(spans[1].name, "bucket 7");
  EXPECT_EQ(spans[1].begin, 2);
  EXPECT_EQ(spans[1].end, 8);
  EXPECT_TRUE(spans[1].overlapping);
}

const std::string event = R"({"name":"step","ph":"X","ts":5,"dur":2,"pid":0,"args":{"a":[{}]}})";

TEST(TimelineFile, may_lack_its_end) {
  for (const char* end : {"]", "", ",", ",\n", ",\n]\n", "\n"}) {
    EXPECT_EQ(read("[" + event + ",\n" + event + end).size(), 2U) << end;
  }
  EXPECT_TRUE(read("[").empty());
  EXPECT_TRUE(read(R"([{"ph":"M","name":"process_name"}, {"ph":"b","name":"bucket 0","pid":0,)"
                   R"("id2":{"local":"1"},"ts":1}])")
                  .empty());
}

TEST(TimelineFile, is_refused_where_it_is_something_else) {
  for (const std::string text :
       {"", "nothing", "{}", "[1", "[[{\"ph\":\"M\"}]]", "[{\"ph\":\"X\"}]", "[{}]", "[{\"ph\":1}]",
        R"([{"name":"step","ph":"X","ts":5,"dur":-2,"pid":0}])",
        R"([{"name":"step","ph":"X","ts":1e300,"dur":2,"pid":0}])",
        R"([{"name":"step","ph":"X","ts":1e999,"dur":2,"pid":0}])",
        R"([{"name":"b","ph":"e","ts":5,"pid":0,"id2":{"local":"1"}}])",
        R"([{"name":"b","ph":"b","ts":5,"pid":0,"id2":{"local":"1"}},)"
        R"( {"name":"b","ph":"e","ts":3,"pid":0,"id2":{"local":"1"}}])",
        "[{\"ph\":\"M\"} x]"}) {
    const std::string message = message_of<DataError>([&] { read(text); });
    EXPECT_NE(message.find("timeline.json: no timeline: "), std::string::npos) << message;
  }
}

// A step of 100 µs from `begin` on, in which two buckets overlap.
void add_step(Spans& spans, std::int64_t rank, double begin) {
  spans.push_back({rank, "forward", begin, begin + 30});
  spans.push_back({rank, "wait", begin + 70, begin + 80});
  spans.push_back({rank, "backward", begin + 30, begin + 80});
  spans.push_back({rank, "bucket 0", begin + 40, begin + 70, true});
  spans.push_back({rank, "bucket 1", begin + 60, begin + 75, true});
  spans.push_back({rank, "step", begin + 80, begin + 100});
}

Spans run_of(int ranks, int steps) {
  Spans spans;
  for (int step = 0; step < steps; ++step) {
    for (int rank = 0; rank < ranks; ++rank) add_step(spans, rank, 100.0 * step);
  }
  return spans;
}

struct Bar {
  double y, left, right;
};

// The bars by their titles, in the order in which they are drawn.
std::vector<std::pair<std::string, Bar>> bars_of(const TimelinePicture& picture) {
  std::istringstream stream(picture.svg);
  boost::property_tree::ptree tree;
  boost::property_tree::read_xml(stream, tree);
  std::vector<std::pair<std::string, Bar>> bars;
  for (const auto& [name, node] : tree.get_child("svg")) {
    const auto title = node.get_optional<std::string>("title");
    if (name != "rect" || !title) continue;
    const auto number = [&node = node](const char* attribute) {
      return node.get<double>(std::string("<xmlattr>.") + attribute);
    };
    bars.push_back({*title, {number("y"), number("x"), number("x") + number("width")}});
  }
  return bars;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(TimelinePicture, has_rows_for_ranks_and_for_what_overlaps) {
  const TimelinePicture picture = draw_last_steps(run_of(2, 1));
  EXPECT_EQ(picture.ranks, 2U);
  const auto bars = bars_of(picture);
  ASSERT_EQ(bars.size(), 12U);
  std::map<std::string, Bar> of;
  for (const auto& [title, bar] : bars) of[title.substr(0, title.find(':'))] = bar;
  std::set<double> rows;
  for (const auto& [title, bar] : bars) rows.insert(bar.y);
  EXPECT_EQ(rows.size(), 6U);
  EXPECT_EQ(of.at("rank 0, forward").y, of.at("rank 0, step").y);
  EXPECT_LT(of.at("rank 0, step").y, of.at("rank 0, bucket 0").y);
  EXPECT_LT(of.at("rank 0, bucket 0").y, of.at("rank 0, bucket 1").y);
  EXPECT_LT(of.at("rank 0, bucket 1").y, of.at("rank 1, forward").y);
  EXPECT_NEAR(of.at("rank 1, forward").right, of.at("rank 1, backward").left, 0.11);
  EXPECT_NEAR(of.at("rank 1, forward").right - of.at("rank 1, forward").left,
              3 * (of.at("rank 1, wait").right - of.at("rank 1, wait").left), 0.5);
  EXPECT_TRUE(has(picture.svg, "waits 10 %"));
  EXPECT_TRUE(has(picture.svg, "rank 1, bucket 1: 0.015 ms from 0.060 ms"));
}

TEST(TimelinePicture, draws_what_is_nested_on_top) {
  Spans spans{{0, "inner", 30, 40}};
  add_step(spans, 0, 0);
  std::vector<std::string> order;
  for (const auto& [title, bar] : bars_of(draw_last_steps(spans))) {
    order.push_back(title.substr(8, title.find(':') - 8));
  }
  for (const char* inner : {"inner", "wait"}) {
    EXPECT_LT(std::find(order.begin(), order.end(), "backward"),
              std::find(order.begin(), order.end(), inner));
  }
}

TEST(TimelinePicture, has_the_last_four_steps_and_says_so) {
  Spans spans = run_of(2, 10);
  spans.push_back({0, "forward", 1000, 1030});
  const TimelinePicture picture = draw_last_steps(spans);
  EXPECT_EQ(bars_of(picture).size(), 48U);
  EXPECT_EQ(picture.caption,
            "The last 4 of 10 steps that all ranks have completed: 0.400 ms, from 0.000600 s after "
            "the timeline began.");
  EXPECT_EQ(bars_of(draw_last_steps(run_of(2, 3))).size(), 36U);
}

TEST(TimelinePicture, ends_with_the_last_step_of_the_rank_that_has_fewest) {
  Spans spans = run_of(3, 5);
  std::erase_if(spans,
                [](const TimelineSpan& span) { return span.rank == 1 && span.begin >= 200; });
  EXPECT_TRUE(has(draw_last_steps(spans).caption, "The last 2 of 2 steps"));
}

TEST(TimelinePicture, counts_a_step_inside_a_step_once) {
  Spans spans;
  for (int i = 0; i < 3; ++i) {
    add_step(spans, 0, 100.0 * i);
    spans.push_back({0, "step", 100.0 * i + 82, 100.0 * i + 90});
  }
  EXPECT_TRUE(has(draw_last_steps(spans).caption, "The last 3 of 3 steps"));
}

TEST(TimelinePicture, says_where_no_step_is_complete) {
  for (const Spans& spans :
       {Spans{}, Spans{{0, "forward", 1, 2}}, Spans{{0, "step", 1, 2}, {1, "forward", 1, 2}}}) {
    const TimelinePicture picture = draw_last_steps(spans);
    EXPECT_TRUE(picture.svg.empty());
    EXPECT_EQ(picture.caption, "The timeline has no step that is complete on all ranks.");
  }
}

TEST(TimelinePicture, draws_steps_that_take_no_time) {
  EXPECT_EQ(bars_of(draw_last_steps({{0, "step", 5, 5}})).size(), 0U);
  EXPECT_FALSE(has(draw_last_steps({{0, "step", 5, 5}}).svg, "nan"));
}

TEST(TimelinePicture, has_fewer_steps_where_they_have_many_spans_and_stays_small) {
  Spans spans;
  for (int step = 0; step < 4; ++step) {
    add_step(spans, 0, 100.0 * step);
    for (int i = 0; i < 1500; ++i) {
      const double begin = 100 * step + 0.02 * i;
      spans.push_back({0, fmt::format("part {}", i), begin, begin + 0.01});
    }
  }
  EXPECT_TRUE(has(draw_last_steps(spans).caption, "The last 2 of 4 steps"));
  for (int i = 0; i < 100000; ++i) {
    const double begin = 300 + 0.0003 * i;
    spans.push_back({0, std::string(200, '<'), begin, begin + 0.0002 + 1e-10 * i});
  }
  const TimelinePicture picture = draw_last_steps(spans);
  EXPECT_TRUE(has(picture.caption, "The last 1 of 4 steps"));
  EXPECT_TRUE(has(picture.caption, " The 97506 shortest spans are left out.")) << picture.caption;
  EXPECT_EQ(bars_of(picture).size(), 4000U);
  EXPECT_TRUE(has(picture.svg, "rank 0, backward: "));
  EXPECT_LT(picture.svg.size(), 2'000'000U);
}

TEST(TimelinePicture, leaves_out_what_overlaps_where_there_are_many_ranks) {
  const TimelinePicture picture = draw_last_steps(run_of(17, 1));
  EXPECT_EQ(bars_of(picture).size(), 17U * 4);
  EXPECT_TRUE(has(picture.caption, "Of more than 16 ranks, what overlaps is left out."));
  EXPECT_EQ(bars_of(draw_last_steps(run_of(16, 1))).size(), 16U * 6);
}

TEST(TimelinePicture, has_a_legend_of_what_there_is_and_escapes_names) {
  Spans spans = run_of(1, 1);
  EXPECT_TRUE(has(draw_last_steps(spans).svg, ">backward</text>"));
  EXPECT_FALSE(has(draw_last_steps(spans).svg, ">other</text>"));
  spans.push_back({0, "<b>\"", 0, 1});
  const std::string svg = draw_last_steps(spans).svg;
  EXPECT_TRUE(has(svg, ">other</text>"));
  EXPECT_TRUE(has(svg, "rank 0, &lt;b&gt;&quot;: 0.001 ms"));
}

}  // namespace timeline_picture_test
}  // namespace lockstep::testing
