#include "comm/drift.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace drift_test {

using comm::find_drift;
using testing::world;

const std::vector<NamedHash> same{{"a", 1}, {"b", 2}, {"c", 3}};

// What each rank but one has, and what that one has, are compared.
std::string drift_of(int culprit, const std::vector<NamedHash>& own) {
  return find_drift(world(), world().rank() == culprit ? own : same);
}

// Those that a message names for a rank that differs: two ranks have no majority.
struct Sides {
  explicit Sides(int culprit) {
    if (world().size() == 2) culprit = 1;
    odd = fmt::format("rank {}", culprit);
    std::vector<int> ranks;
    for (int rank = 0; rank < world().size(); ++rank) {
      if (rank != culprit) ranks.push_back(rank);
    }
    others = fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
  }
  std::string odd, others;
};

class Drift : public ::testing::Test {
 protected:
  // One after the other; a single rank has nobody to differ from.
  template <class Test>
  static void for_each_culprit(Test&& test) {
    for (int culprit = 0; culprit < world().size() && world().size() > 1; ++culprit) test(culprit);
  }
};

TEST_F(Drift, is_not_where_all_ranks_have_the_same) {
  EXPECT_EQ(find_drift(world(), same), "");
  EXPECT_EQ(find_drift(world(), {}), "");
}

TEST_F(Drift, of_an_entry_names_it_and_the_ranks) {
  for_each_culprit([](int culprit) {
    const Sides sides(culprit);
    EXPECT_EQ(drift_of(culprit, {{"a", 1}, {"b", 5}, {"c", 3}}),
              fmt::format("'b' on {} differs from {}", sides.odd, sides.others));
  });
}

TEST_F(Drift, of_an_entry_that_one_rank_lacks) {
  for_each_culprit([](int culprit) {
    const Sides sides(culprit);
    const bool root_lacks = world().size() == 2 && culprit == 0;
    EXPECT_EQ(drift_of(culprit, {{"a", 1}, {"c", 3}}),
              root_lacks ? "'b' is only on rank 1"
                         : fmt::format("'b' is missing on {}, unlike {}", sides.odd, sides.others));
  });
}

TEST_F(Drift, of_an_entry_that_only_one_rank_has) {
  for_each_culprit([](int culprit) {
    const Sides sides(culprit);
    const bool only_root_has = world().size() == 2 && culprit == 0;
    EXPECT_EQ(drift_of(culprit, {{"a", 1}, {"b", 2}, {"b2", 2}, {"c", 3}}),
              only_root_has ? "'b2' is missing on rank 1, unlike rank 0"
                            : fmt::format("'b2' is only on {}", sides.odd));
  });
}

TEST_F(Drift, of_many_entries_names_the_first_few) {
  for_each_culprit([](int culprit) {
    const Sides sides(culprit);
    std::vector<NamedHash> more{{"a", 1}, {"b", 2}, {"c", 9}};
    std::vector<NamedHash> mine = same;
    for (int i = 0; i < 4; ++i) mine.push_back({fmt::format("d{}", i), 0});
    for (int i = 0; i < 4; ++i) more.push_back({fmt::format("d{}", i), 1});
    const std::string found = find_drift(world(), world().rank() == culprit ? more : mine);
    const std::string rest = fmt::format("on {} differs from {}", sides.odd, sides.others);
    EXPECT_EQ(found, fmt::format("'c' {}; 'd0' {}; 'd1' {}; 2 others", rest, rest, rest));
  });
}

TEST_F(Drift, without_a_majority_is_told_from_rank_0) {
  if (world().size() < 3) return;
  const auto rank = static_cast<std::uint64_t>(world().rank());
  EXPECT_EQ(find_drift(world(), {{"a", rank}}), world().size() == 3
                                                    ? "'a' on ranks 1, 2 differs from rank 0"
                                                    : "'a' on ranks 1, 2, 3 differs from rank 0");
  const std::string pairs = find_drift(world(), {{"a", rank / 2}});
  EXPECT_EQ(pairs, world().size() == 3 ? "'a' on rank 2 differs from ranks 0, 1"
                                       : "'a' on ranks 2, 3 differs from ranks 0, 1");
  const std::vector<NamedHash> nothing;
  EXPECT_EQ(find_drift(world(), rank == 1 ? nothing : std::vector<NamedHash>{{"a", rank % 3}}),
            world().size() == 3
                ? "'a' on rank 2 differs from rank 0, and is missing on rank 1"
                : "'a' on rank 2 differs from ranks 0, 3, and is missing on rank 1");
}

TEST_F(Drift, of_the_order_is_found) {
  for_each_culprit([](int culprit) {
    EXPECT_EQ(drift_of(culprit, {{"b", 2}, {"a", 1}, {"c", 3}}), "the order of entries");
  });
}

TEST_F(Drift, is_found_whatever_the_name) {
  const std::string name("line\nof\0all", 11);
  if (world().size() == 1) return;
  const bool last = world().rank() == world().size() - 1;
  const std::string found = find_drift(world(), {{"", 1}, {name, last ? 2U : 3U}});
  EXPECT_NE(found.find("'" + name + "' on rank"), std::string::npos) << found;
}

}  // namespace drift_test
}  // namespace lockstep
