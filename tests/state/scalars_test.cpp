#include "lockstep/state/scalars.hpp"

#include <cstdint>
#include <limits>
#include <string>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace scalars_test {

using testing::throws;

struct Numbers : ::testing::Test {
  std::int64_t epoch = 3;
  double best = 0.5;
  Scalars scalars{{{"epoch", &epoch}, {"best", &best}}};
};

TEST_F(Numbers, are_saved_as_they_are_when_asked) {
  epoch = 4;
  EXPECT_TRUE(bit_equal(scalars.state_dict(), StateDict({{"epoch", 4}, {"best", 0.5}})));
}

TEST_F(Numbers, come_back_to_the_bit) {
  epoch = std::numeric_limits<std::int64_t>::min();
  best = -0.0;
  const StateDict saved = scalars.state_dict();
  epoch = 0, best = 1;
  scalars.check_restore(saved);
  EXPECT_EQ(best, 1) << "a check changes nothing";
  scalars.restore(saved);
  EXPECT_TRUE(bit_equal(scalars.state_dict(), saved));
}

TEST(Scalars, may_be_truth_values_and_texts) {
  bool done = true;
  std::string note = "two\nlines";
  Scalars scalars({{"done", &done}, {"note", &note}});
  const StateDict saved = scalars.state_dict();
  EXPECT_TRUE(bit_equal(saved, StateDict({{"done", true}, {"note", "two\nlines"}})));
  done = false, note.clear();
  scalars.restore(saved);
  EXPECT_TRUE(done);
  EXPECT_EQ(note, "two\nlines");
  EXPECT_TRUE(throws<StateError>(
      [&] {
        scalars.restore({{"done", 1}, {"note", "n"}});
      },
      "'done'", "a bool", "an integer"));
}

TEST_F(Numbers, stay_as_they_were_when_one_does_not_fit) {
  const StateDict missing{{"epoch", 9}};
  const StateDict wrong_double{{"epoch", 9}, {"best", 1}}, wrong_int{{"epoch", 9.0}, {"best", 1.0}};
  const StateDict more{{"epoch", 9}, {"best", 1.0}, {"worst", 1.0}};
  EXPECT_TRUE(throws<StateError>([&] { scalars.restore(missing); }, "missing: best"));
  EXPECT_TRUE(throws<StateError>([&] { scalars.restore(more); }, "unexpected: worst"));
  EXPECT_TRUE(throws<StateError>([&] { scalars.restore(wrong_double); }, "'best'", "a double",
                                 "an integer"));
  EXPECT_TRUE(
      throws<StateError>([&] { scalars.restore(wrong_int); }, "'epoch'", "an integer", "a double"));
  EXPECT_TRUE(throws<StateError>([&] { scalars.check_restore(wrong_int); }, "'epoch'"));
  EXPECT_EQ(epoch, 3);
  EXPECT_EQ(best, 0.5);
}

}  // namespace scalars_test
}  // namespace lockstep
