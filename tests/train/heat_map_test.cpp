#include "lockstep/train/heat_map.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::train {
namespace heat_map_test {

using lockstep::testing::throws;

std::size_t count(const std::string& svg, const std::string& pattern) {
  const std::regex regex(pattern);
  return static_cast<std::size_t>(
      std::distance(std::sregex_iterator(svg.begin(), svg.end(), regex), std::sregex_iterator()));
}

// Cells that are drawn, by the runs of all paths.
std::size_t drawn_cells(const std::string& svg) {
  const std::regex run("M[0-9]+ [0-9]+h([0-9]+)");
  std::size_t cells = 0;
  for (std::sregex_iterator it(svg.begin(), svg.end(), run), end; it != end; ++it) {
    cells += std::stoul((*it)[1]);
  }
  return cells;
}

HeatMap ramp(std::size_t columns, std::size_t rows) {
  HeatMap map{.title = "a ramp", .values = {}, .columns = columns, .low = 0, .high = 1};
  for (std::size_t i = 0; i < columns * rows; ++i) {
    map.values.push_back(static_cast<double>(i % columns) / static_cast<double>(columns));
  }
  return map;
}

TEST(HeatMap, has_a_cell_for_each_number) {
  const std::string svg = field_picture_svg({.title = "fields", .maps = {ramp(10, 6)}});
  EXPECT_EQ(drawn_cells(svg), 60U);
  EXPECT_EQ(count(svg, "<path stroke=\"#[0-9a-f]{6}\""), 10U) << "a path a shade";
  EXPECT_NE(svg.find(">a ramp</text>"), std::string::npos);
  EXPECT_NE(svg.find(">fields</text>"), std::string::npos);
  EXPECT_NE(svg.find(">0.5</text>"), std::string::npos) << "the middle of the scale";
}

TEST(HeatMap, has_the_lowest_row_first) {
  HeatMap map{.title = "", .values = {1, 1, 0, 0}, .columns = 2, .low = 0, .high = 1};
  const std::string svg = field_picture_svg({.title = "", .maps = {map}});
  EXPECT_NE(svg.find("stroke=\"#fde725\" d=\"M0 1h2\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("stroke=\"#440154\" d=\"M0 0h2\""), std::string::npos);
}

TEST(HeatMap, leaves_white_what_is_not_finite_and_cuts_what_is_beyond) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  HeatMap map{.title = "", .values = {nan, infinity, -5, 7}, .columns = 4, .low = 0, .high = 1};
  const std::string svg = field_picture_svg({.title = "", .maps = {map}});
  EXPECT_EQ(drawn_cells(svg), 2U);
  EXPECT_NE(svg.find("stroke=\"#440154\" d=\"M2 0h1\""), std::string::npos);
  EXPECT_NE(svg.find("stroke=\"#fde725\" d=\"M3 0h1\""), std::string::npos);
}

TEST(HeatMap, is_white_in_the_middle_where_it_diverges) {
  HeatMap map{.title = "", .values = {0}, .columns = 1, .low = -1, .high = 1, .diverging = true};
  const std::string svg = field_picture_svg({.title = "", .maps = {map}});
  std::smatch colour;
  ASSERT_TRUE(std::regex_search(svg, colour, std::regex("<path stroke=\"#(..)(..)(..)\"")));
  for (std::size_t i = 1; i < 4; ++i) EXPECT_GT(std::stoi(colour[i], nullptr, 16), 0xe8);
}

TEST(HeatMap, of_many_cells_draws_some) {
  const std::string svg = field_picture_svg({.title = "", .maps = {ramp(1000, 300)}});
  EXPECT_EQ(drawn_cells(svg), 128U * 128U);
  EXPECT_LT(svg.size(), 100000U);
}

TEST(FieldPicture, has_its_maps_its_marks_and_its_chart) {
  HeatMap map = ramp(4, 4);
  map.dots = {{0.5, 0.5}, {3.5, 3.5}};
  map.crosses = {{2, 2}};
  const Chart chart{.title = "", .x_label = "step", .panels = {{"loss", {{"", {{0, 1}, {1, 0}}}}}}};
  const std::string svg =
      field_picture_svg({.title = "a < b", .maps = {map, map, map, map}, .chart = chart});
  EXPECT_EQ(count(svg, ">a ramp</text>"), 4U);
  EXPECT_EQ(count(svg, "<circle"), 2U * 4 + 2) << "dots, and the points of the chart";
  EXPECT_EQ(count(svg, "#ff4d4d"), 4U);
  EXPECT_EQ(count(svg, "<svg"), 2U);
  EXPECT_EQ(count(svg, "</svg>"), 2U);
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
}

TEST(FieldPicture, refuses_maps_that_are_none) {
  const auto refuses = [](const HeatMap& map, const char* what) {
    return throws<OptionError>([&] { field_picture_svg({.title = "", .maps = {map}}); }, what);
  };
  HeatMap map = ramp(4, 4);
  map.values.pop_back();
  EXPECT_TRUE(refuses(map, "rows of 4 numbers, found 15"));
  map.columns = 0;
  EXPECT_TRUE(refuses(map, "found 15"));
  map = ramp(4, 4);
  map.high = map.low;
  EXPECT_TRUE(refuses(map, "from 0 to 0"));
  map.high = std::nan("");
  EXPECT_TRUE(refuses(map, "nan"));
  EXPECT_TRUE(throws<OptionError>([] { field_picture_svg({}); }, "at least one map"));
}

TEST(FieldPicture, is_written_to_a_file) {
  const auto path = std::filesystem::temp_directory_path() / "lockstep-picture-test.svg";
  const FieldPicture picture{.title = "t", .maps = {ramp(3, 3)}};
  write_field_picture(path, picture);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), field_picture_svg(picture));
  std::filesystem::remove(path);
  EXPECT_TRUE(throws<Error>([&] { write_field_picture(path / "none.svg", picture); }, "none.svg"));
}

}  // namespace heat_map_test
}  // namespace lockstep::train
