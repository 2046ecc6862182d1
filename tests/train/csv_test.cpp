#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "lockstep/train/metrics.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace csv_test {

using Records = std::vector<train::MetricRecord>;

std::string csv(const Records& records) {
  const TemporaryFolder folder;
  train::write_csv(folder / "metrics.csv", records);
  EXPECT_FALSE(std::filesystem::exists(folder / "metrics.csv.tmp"));
  return read_bytes(folder / "metrics.csv");
}

TEST(Csv, has_a_column_a_name_in_the_order_of_first_appearance) {
  EXPECT_EQ(csv({{{"step", 1}, {"loss", 0.5}},
                 {{"accuracy", 0.25}, {"step", 2}},
                 {{"loss", 0.1 + 0.2}, {"split", "test"}}}),
            "step,loss,accuracy,split\r\n"
            "1,0.5,,\r\n"
            "2,,0.25,\r\n"
            ",0.30000000000000004,,test\r\n");
}

TEST(Csv, has_a_column_an_element_of_a_list) {
  EXPECT_EQ(csv({{{"waiting", std::vector{0.5}}, {"step", 1}},
                 {{"step", 2}, {"waiting", std::vector{0.25, 0.75, std::nan("")}}},
                 {{"waiting", 3}}}),
            "waiting,waiting.0,waiting.1,waiting.2,step\r\n"
            ",0.5,,,1\r\n"
            ",0.25,0.75,,2\r\n"
            "3,,,,\r\n");
}

TEST(Csv, leaves_numbers_that_are_not_finite_empty) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(csv({{{"a", std::nan("")}, {"b", infinity}, {"c", -infinity}, {"d", -0.0}}}),
            "a,b,c,d\r\n,,,-0\r\n");
  EXPECT_EQ(csv({{{"a", std::nan("")}}}), "a\r\n\"\"\r\n");
}

TEST(Csv, quotes_what_would_end_a_field) {
  EXPECT_EQ(csv({{{"a,b", "say \"no\""}, {"c\n", "d\re"}, {"plain ", ""}}}),
            "\"a,b\",\"c\n\",plain \r\n\"say \"\"no\"\"\",\"d\re\",\r\n");
  EXPECT_EQ(csv({{{"a,b", std::vector{1.0}}}}), "\"a,b.0\"\r\n1\r\n");
}

TEST(Csv, of_nothing_is_an_empty_line) { EXPECT_EQ(csv({}), "\r\n"); }

TEST(Csv, replaces_the_file_or_leaves_it) {
  const TemporaryFolder folder;
  write_bytes(folder / "metrics.csv", "old");
  std::filesystem::create_directory(folder / "metrics.csv.tmp");
  EXPECT_THROW(train::write_csv(folder / "metrics.csv", {}), Error);
  EXPECT_EQ(read_bytes(folder / "metrics.csv"), "old");
  const std::string message =
      message_of<Error>([&] { train::write_csv(folder / "none" / "metrics.csv", {}); });
  EXPECT_NE(message.find("none/metrics.csv"), std::string::npos) << message;
}

}  // namespace csv_test
}  // namespace lockstep::testing
