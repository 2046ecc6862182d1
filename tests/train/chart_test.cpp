#include "lockstep/train/chart.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/property_tree/xml_parser.hpp>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "train/axis.hpp"
#include "train/svg_text.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace chart_test {

using train::Axis;
using train::AxisOptions;
using train::Chart;
using train::ChartPoint;
using train::ChartSeries;
using train::line_chart_svg;
using train::make_axis;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

struct Svg {
  double width = 0;
  double height = 0;
  std::vector<std::string> texts;
  std::vector<std::string> curves;  // the paths that are no part of a legend
  std::size_t circles = 0;
};

double number(const boost::property_tree::ptree& node, const std::string& attribute) {
  return std::stod(node.get<std::string>("<xmlattr>." + attribute));
}

// What a reader of XML finds in the document.
Svg parse(const std::string& document) {
  std::istringstream stream(document);
  boost::property_tree::ptree tree;
  boost::property_tree::read_xml(stream, tree);
  const auto& root = tree.get_child("svg");
  Svg svg{
      .width = number(root, "width"), .height = number(root, "height"), .texts = {}, .curves = {}};
  for (const auto& [name, node] : root) {
    if (name == "text") {
      svg.texts.push_back(node.data());
      EXPECT_GE(number(node, "x"), 0);
      EXPECT_LE(number(node, "x"), svg.width);
      EXPECT_LE(number(node, "y"), svg.height);
    }
    if (name == "path" && node.get<std::string>("<xmlattr>.fill", "") == "none") {
      svg.curves.push_back(node.get<std::string>("<xmlattr>.d"));
    }
    if (name == "circle") ++svg.circles;
  }
  return svg;
}

bool has_text(const Svg& svg, const std::string& text) {
  return std::find(svg.texts.begin(), svg.texts.end(), text) != svg.texts.end();
}

Svg draw(const std::vector<ChartPoint>& points) {
  const std::string document = line_chart_svg({"", "x", {{"y", {{"series", points}}}}});
  EXPECT_EQ(document.find("nan"), std::string::npos);
  EXPECT_EQ(document.find("inf"), std::string::npos);
  return parse(document);
}

std::vector<ChartPoint> numbers_of(const std::string& path) {
  std::string spaced = path;
  std::replace_if(
      spaced.begin(), spaced.end(), [](char c) { return c == 'M' || c == 'L'; }, ' ');
  std::istringstream stream(spaced);
  std::vector<ChartPoint> points;
  for (ChartPoint point; stream >> point.x >> point.y;) points.push_back(point);
  return points;
}

TEST(Chart, shows_titles_labels_and_legend) {
  const std::vector<ChartPoint> points{{1, 0.5}, {2, 0.25}, {3, 0.125}};
  const Svg svg = parse(line_chart_svg(
      {"a run", "epoch", {{"loss", {{"train", points}, {"test", points}}}, {"accuracy", {}}}}));
  for (const char* text : {"a run", "epoch", "loss", "accuracy", "train", "test", "no data"}) {
    EXPECT_TRUE(has_text(svg, text)) << text;
  }
  EXPECT_EQ(svg.curves.size(), 2U);
  EXPECT_EQ(svg.circles, 6U);
  EXPECT_EQ(svg.width, 960);
}

TEST(Chart, puts_points_where_the_axes_say) {
  const Svg svg = draw({{0, 0}, {5, 50}, {10, 100}});
  ASSERT_EQ(svg.curves.size(), 1U);
  const auto points = numbers_of(svg.curves[0]);
  ASSERT_EQ(points.size(), 3U);
  EXPECT_NEAR(points[1].x, (points[0].x + points[2].x) / 2, 0.11);
  EXPECT_NEAR(points[1].y, (points[0].y + points[2].y) / 2, 0.11);
  EXPECT_LT(points[0].x, points[2].x);
  EXPECT_GT(points[0].y, points[2].y);
  EXPECT_TRUE(has_text(svg, "100"));
}

TEST(Chart, draws_a_single_point_as_a_dot) {
  const Svg svg = draw({{1, 0.5}});
  EXPECT_EQ(svg.curves.size(), 0U);
  EXPECT_EQ(svg.circles, 1U);
  EXPECT_TRUE(has_text(svg, "0.50"));
}

TEST(Chart, has_zero_on_its_axis_where_it_is_told_to) {
  const auto labels = [](double y, bool from_zero) {
    const std::vector<ChartPoint> points{{0, y}, {1, y + 3}};
    return parse(line_chart_svg({"", "x", {{"y", {{"", points}}, from_zero}}}));
  };
  EXPECT_TRUE(has_text(labels(100, true), "0"));
  EXPECT_TRUE(has_text(labels(-100, true), "0"));
  EXPECT_FALSE(has_text(labels(100, false), "0.0"));
  EXPECT_TRUE(has_text(labels(100, false), "100.0"));
}

TEST(Chart, leaves_gaps_for_what_is_not_finite) {
  const Svg svg =
      draw({{0, 1}, {1, 2}, {2, nan}, {3, 1}, {4, 2}, {5, infinity}, {6, 1}, {7, -1e301}});
  EXPECT_EQ(svg.curves.size(), 2U);
  EXPECT_EQ(svg.circles, 5U);
  EXPECT_TRUE(has_text(draw({{0, nan}, {nan, 0}}), "no data"));
}

TEST(Chart, survives_extreme_numbers) {
  for (const double x : {0.0, 1.0, -3.0, 1e-300, 5e-324, 1e300, -1e300, 123456789.0}) {
    draw({{x, x}});
    draw({{x, 0}, {0, x}});
    draw({{x, 1e300}, {1, -1e300}});
    draw({{x, 1}, {std::nextafter(x, infinity), 1 + 1e-15}});
  }
}

TEST(Chart, stays_small_and_keeps_the_outline_of_many_points) {
  std::vector<ChartPoint> points;
  for (int i = 0; i < 300000; ++i) points.push_back({static_cast<double>(i), std::sin(i)});
  points[123456].y = 10;
  points[200000].y = -10;
  const std::string document = line_chart_svg({"", "", {{"", {{"", points}}}}});
  EXPECT_LT(document.size(), 40000U);
  const Svg svg = parse(document);
  ASSERT_EQ(svg.curves.size(), 1U);
  const auto drawn = numbers_of(svg.curves[0]);
  const auto [top, low] = std::minmax_element(
      drawn.begin(), drawn.end(), [](const auto& a, const auto& b) { return a.y < b.y; });
  // One pixel is 0.1 % of the range; a sine alone would span a tenth of it.
  const auto [reference_top, reference_low] = [] {
    const auto both = numbers_of(draw({{0, 10}, {1, -10}}).curves[0]);
    return std::pair(both[0].y, both[1].y);
  }();
  EXPECT_NEAR(low->y - top->y, reference_low - reference_top, 21);
  EXPECT_EQ(drawn.front().x, numbers_of(draw({{0, 1}, {1, 1}}).curves[0]).front().x);
}

TEST(Chart, escapes_text) {
  const std::string nasty = "<b> & \"quotes\" 'é'";
  const Svg svg = parse(line_chart_svg({nasty, nasty, {{nasty, {{nasty, {{1, 1}}}}}}}));
  EXPECT_EQ(std::count(svg.texts.begin(), svg.texts.end(), nasty), 4);
}

TEST(Chart, draws_many_series_and_as_many_names_as_fit) {
  Chart chart{"", "x", {{"y", {}}}};
  for (int i = 0; i < 40; ++i) {
    chart.panels[0].series.push_back({"series number " + std::to_string(i), {{0, 1}, {1, 2}}});
  }
  const Svg svg = parse(line_chart_svg(chart));
  EXPECT_EQ(svg.curves.size(), 40U);
  EXPECT_TRUE(has_text(svg, "series number 11"));
  EXPECT_FALSE(has_text(svg, "series number 12"));
}

TEST(Chart, puts_two_panels_in_a_row) {
  const auto size = [](std::size_t panels) {
    const Svg svg = parse(line_chart_svg({"", "", std::vector<train::ChartPanel>(panels)}));
    return std::pair(svg.width, svg.height);
  };
  EXPECT_EQ(size(2).first, 2 * size(1).first);
  EXPECT_EQ(size(2).second, size(1).second);
  EXPECT_EQ(size(4).first, size(2).first);
  EXPECT_GT(size(4).second, size(2).second);
  EXPECT_THROW(line_chart_svg({}), OptionError);
}

TEST(Chart, replaces_the_file_or_leaves_it) {
  const TemporaryFolder folder;
  const Chart chart{"t", "x", {{"y", {}}}};
  write_bytes(folder / "chart.svg", "old");
  write_line_chart(folder / "chart.svg", chart);
  EXPECT_EQ(read_bytes(folder / "chart.svg"), line_chart_svg(chart));
  EXPECT_FALSE(std::filesystem::exists(folder / "chart.svg.tmp"));
  const std::string message =
      message_of<Error>([&] { write_line_chart(folder / "none" / "chart.svg", chart); });
  EXPECT_NE(message.find("none/chart.svg"), std::string::npos) << message;
  EXPECT_NE(message.find("No such file or directory"), std::string::npos) << message;
  EXPECT_THROW(write_line_chart(folder / ".", chart), Error);
}

std::vector<std::string> labels(double low, double high, const AxisOptions& options = {}) {
  std::vector<std::string> all;
  for (const auto& tick : make_axis(low, high, options).ticks) all.push_back(tick.label);
  return all;
}

TEST(Axis, has_ticks_at_round_numbers) {
  using Labels = std::vector<std::string>;
  EXPECT_EQ(labels(0, 1), (Labels{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(labels(-0.3, 0.3), (Labels{"-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"}));
  EXPECT_EQ(labels(0, 60000), (Labels{"0", "10000", "20000", "30000", "40000", "50000", "60000"}));
  EXPECT_EQ(labels(1, 3, {.whole_steps = true}), (Labels{"1", "2", "3"}));
  EXPECT_EQ(labels(7, 7, {.whole_steps = true}), Labels{"7"});
  EXPECT_EQ(labels(0, 2e-6), (Labels{"0", "5e-07", "1e-06", "1.5e-06", "2e-06"}));
  EXPECT_EQ(labels(1e9, 1.004e9),
            (Labels{"1e+09", "1.001e+09", "1.002e+09", "1.003e+09", "1.004e+09"}));
}

TEST(Axis, encloses_its_range_with_distinct_ticks_whatever_the_range) {
  for (const double low : {0.0, -1.0, 3.7, -1e6, 1e12, -1e300, 1e-200}) {
    for (const double span : {0.0, 1e-9, 1e-3, 0.77, 1.0, 42.0, 1e5, 1e13, 1e299}) {
      for (const bool end_on_ticks : {false, true}) {
        const double high = low + span;
        const Axis axis = make_axis(low, high, {.end_on_ticks = end_on_ticks});
        ASSERT_LT(axis.low, axis.high);
        const double slack = 1e-5 * (axis.high - axis.low);
        EXPECT_LE(axis.low, low + slack);
        EXPECT_GE(axis.high, high - slack);
        ASSERT_GE(axis.ticks.size(), 2U) << low << " " << span;
        EXPECT_LE(axis.ticks.size(), 12U) << low << " " << span;
        for (std::size_t i = 1; i < axis.ticks.size(); ++i) {
          EXPECT_LT(axis.ticks[i - 1].value, axis.ticks[i].value);
          EXPECT_NE(axis.ticks[i - 1].label, axis.ticks[i].label) << low << " " << span;
        }
      }
    }
  }
}

TEST(SvgText, replaces_what_xml_does_not_allow) {
  const std::string replaced = "\xEF\xBF\xBD";
  EXPECT_EQ(train::svg_text("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
  EXPECT_EQ(train::svg_text("ä€😀"), "ä€😀");
  EXPECT_EQ(train::svg_text(std::string("\0\x01\x1b", 3)), replaced + replaced + replaced);
  EXPECT_EQ(train::svg_text("a\xC3"), "a" + replaced);
  EXPECT_EQ(train::svg_text("\xFFz"), replaced + "z");
  EXPECT_EQ(train::svg_text("\xC0\x80"), replaced + replaced);
  EXPECT_EQ(train::svg_text("\xE0\x80\xBC"), replaced + replaced + replaced);
  EXPECT_EQ(train::svg_text("\xED\xA0\x80"), replaced + replaced + replaced);
}

}  // namespace chart_test
}  // namespace lockstep::testing
