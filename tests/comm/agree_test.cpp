#include <unistd.h>

#include <stdexcept>
#include <string>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace agree_test {

using testing::world;

// The message of the E that agree throws; fails where it throws nothing or something else.
template <class E, class Work>
std::string message_of(const Work& work) {
  try {
    world().agree(work);
  } catch (const E& error) {
    EXPECT_EQ(typeid(error), typeid(E));
    EXPECT_TRUE(error.collective());
    return testing::without_host(error.what());
  } catch (...) {
    ADD_FAILURE() << "another type: " << describe_current_exception().message;
    return {};
  }
  ADD_FAILURE() << "no exception";
  return {};
}

TEST(Agree, returns_where_no_rank_fails) {
  int runs = 0;
  EXPECT_NO_THROW(world().agree([&] { ++runs; }));
  EXPECT_EQ(runs, 1);
}

TEST(Agree, throws_on_all_ranks_what_one_has_thrown) {
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    const std::string message = message_of<DataError>([&] {
      if (world().rank() == culprit) throw DataError("no file " + std::to_string(culprit * 10));
    });
    EXPECT_EQ(message, "no file " + std::to_string(culprit * 10) + " (rank " +
                           std::to_string(culprit) + ")");
  }
}

TEST(Agree, takes_the_error_of_the_lowest_rank) {
  const int lowest = world().size() / 2;
  const std::string rank = std::to_string(lowest);
  const std::string message = message_of<NameError>([&] {
    if (world().rank() == lowest) throw NameError("lowest");
    if (world().rank() > lowest) throw ShapeError("a longer message of another kind");
  });
  EXPECT_EQ(message, "lowest (rank " + rank + ")");
}

TEST(Agree, names_one_rank_where_all_fail) {
  EXPECT_EQ(message_of<OptionError>([] { throw OptionError("all"); }), "all (rank 0)");
}

TEST(Agree, passes_on_exceptions_of_other_types_as_errors) {
  const int last = world().size() - 1;
  const std::string rank = " (rank " + std::to_string(last) + ")";
  EXPECT_EQ(message_of<Error>([&] {
              if (world().rank() == last) throw std::runtime_error("disk full");
            }),
            "disk full" + rank);
  EXPECT_EQ(message_of<Error>([&] {
              if (world().rank() == last) throw 7;
            }),
            "an exception that is not a std::exception" + rank);
}

TEST(Agree, keeps_a_long_or_empty_message) {
  const std::string text(100000, 'z');
  EXPECT_EQ(message_of<StateError>([&] { throw StateError(text); }), text + " (rank 0)");
  EXPECT_EQ(message_of<StateError>([&] { throw StateError(""); }), " (rank 0)");
}

TEST(Agree, adds_no_second_rank_where_the_error_was_agreed_on_within) {
  const int last = world().size() - 1;
  const std::string message = message_of<CheckpointError>([&] {
    world().agree([&] {
      if (world().rank() == last) throw CheckpointError("truncated");
    });
  });
  EXPECT_EQ(message, "truncated (rank " + std::to_string(last) + ")");
}

TEST(Agree, names_the_host_where_there_are_several) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const int last = world().size() - 1;
  std::string of_last = host;
  world().broadcast(of_last, last);
  for (const bool several : {false, true}) {
    CommunicatorOptions options;
    if (several) options.node = world().rank();
    const Communicator ranks(world().handle(), options);
    const bool names = ranks.placement().nodes.size() > 1;
    const std::string expected =
        "no file (rank " + std::to_string(last) + (names ? " on " + of_last : "") + ")";
    try {
      ranks.agree([&] {
        if (ranks.rank() == last) throw DataError("no file");
      });
      ADD_FAILURE() << "no exception";
    } catch (const DataError& error) {
      EXPECT_EQ(error.what(), expected);
    }
  }
}

TEST(Agree, leaves_the_communicator_usable) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_THROW(world().agree([&] {
      if (world().rank() == i % world().size()) throw StateError("again");
    }),
                 StateError);
    EXPECT_EQ(world().all_reduce(1.0), world().size());
  }
}

}  // namespace agree_test
}  // namespace lockstep
