// What happens when one rank cannot have shared memory, at each step of setting it up.

#include <dlfcn.h>
#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/placements.hpp"
#include "comm/resources.hpp"
#include "lockstep/comm/shared_buffer.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/log.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace {
// What posix_fallocate returns on this rank; 0: what it does. No limit of a process makes it fail.
int allocation_error = 0;
}  // namespace

extern "C" int posix_fallocate64(int descriptor, off64_t offset, off64_t size) {
  using Function = int (*)(int, off64_t, off64_t);
  static const auto original = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "posix_fallocate64"));
  return allocation_error != 0 ? allocation_error : original(descriptor, offset, size);
}

namespace lockstep {

using testing::Arrangement;
using testing::arrangements;
using testing::descriptors;
using testing::Limit;
using testing::Log;
using testing::names_left;
using testing::throws;
using testing::world;

class AllocationError {
 public:
  explicit AllocationError(int code) { allocation_error = code; }
  ~AllocationError() { allocation_error = 0; }
  AllocationError(const AllocationError&) = delete;
  AllocationError& operator=(const AllocationError&) = delete;
};

// The least number that a new descriptor could have.
std::size_t next_descriptor() {
  const int next = dup(STDERR_FILENO);
  close(next);
  return static_cast<std::size_t>(next);
}

float drawn(std::size_t i) {
  return 1.0F / static_cast<float>(i % 1000 + 3 + 7 * static_cast<std::size_t>(world().rank()));
}

constexpr std::size_t few = 30000;

std::vector<float> reduced(SharedBuffer<float>& buffer) {
  for (std::size_t i = 0; i < few; ++i) buffer.values()[i] = drawn(i);
  buffer.all_reduce();
  return {buffer.result().begin(), buffer.result().begin() + few};
}

// Makes a buffer of `size` numbers while limit(), on rank `culprit` alone, returns what hinders it,
// and checks that all ranks have one in ordinary memory, with one warning that says `reason`, and
// that nothing is left of the attempt.
template <class MakeLimit>
void expect_ordinary_memory(const Communicator& ranks, int culprit, std::size_t size,
                            const std::string& reason, MakeLimit limit) {
  std::optional<SharedBuffer<float>> buffer;
  const Log log;
  ranks.barrier();
  const std::size_t open = descriptors();
  {
    const auto hindered = world().rank() == culprit ? limit() : decltype(limit())();
    buffer.emplace(ranks, size);
  }
  EXPECT_FALSE(buffer->shared());
  EXPECT_EQ(descriptors(), open);
  if (world().rank() == 0) {
    const std::string expected = reason + " on rank " + std::to_string(culprit);
    const std::string found = log.lines().empty() ? "no warning" : log.lines()[0];
    EXPECT_EQ(log.lines().size(), 1U);
    EXPECT_NE(found.find(expected), std::string::npos) << found;
  } else {
    EXPECT_TRUE(log.lines().empty());
  }
  world().barrier();
  EXPECT_EQ(names_left(), 0U);
  SharedBuffer<float> unhindered(ranks, size);
  EXPECT_TRUE(unhindered.shared());
  EXPECT_EQ(reduced(*buffer), reduced(unhindered)) << reason;
}

// Calls use(ranks, culprit) for rank 0 and the last one, as all nodes that these may be on.
template <class Use>
void for_each_culprit(Use use) {
  for (const Arrangement& arrangement : arrangements()) {
    if (!arrangement.options.share_memory) continue;
    SCOPED_TRACE(arrangement.name);
    const Communicator ranks(world().handle(), arrangement.options);
    use(ranks, 0);
    if (world().size() > 1) use(ranks, world().size() - 1);
  }
}

const std::vector<int>& neighbours_of(const Communicator& ranks, int rank) {
  for (const std::vector<int>& node : ranks.placement().nodes) {
    for (const int member : node) {
      if (member == rank) return node;
    }
  }
  throw Error("no such rank");
}

TEST(NodeMemoryFailure, a_rank_that_cannot_open_it) {
  for_each_culprit([](const Communicator& ranks, int culprit) {
    expect_ordinary_memory(ranks, culprit, few, "(shm_open: Too many open files", [] {
      return std::make_unique<Limit>(RLIMIT_NOFILE, next_descriptor());
    });
  });
}

TEST(NodeMemoryFailure, a_rank_that_cannot_make_it_so_long) {
  for_each_culprit([](const Communicator& ranks, int culprit) {
    if (neighbours_of(ranks, culprit)[0] != culprit) return;  // the first of a node makes it
    expect_ordinary_memory(ranks, culprit, few, "(ftruncate: File too large",
                           [] { return std::make_unique<Limit>(RLIMIT_FSIZE, 4096); });
  });
}

TEST(NodeMemoryFailure, a_rank_for_which_no_pages_are_left) {
  for_each_culprit([](const Communicator& ranks, int culprit) {
    expect_ordinary_memory(ranks, culprit, few, "(posix_fallocate: No space left on device",
                           [] { return std::make_unique<AllocationError>(ENOSPC); });
  });
}

TEST(NodeMemoryFailure, a_rank_that_cannot_map_it) {
  // What the ranks of a node share has values of each and the result, and ordinary memory one of both. The limit
  // is in between, far from what else a process may map or unmap meanwhile.
  constexpr std::size_t shared = std::size_t{60} << 20;
  const std::size_t bytes = shared / static_cast<std::size_t>(world().size() + 1);
  for_each_culprit([&](const Communicator& ranks, int culprit) {
    if (world().size() == 1 || ranks.placement().nodes.size() > 1)
      return;  // touching it takes time
    expect_ordinary_memory(
        ranks, culprit, bytes / sizeof(float), "(mmap: Cannot allocate memory", [&] {
          return std::make_unique<Limit>(RLIMIT_AS, testing::address_space() + shared / 2 + bytes);
        });
  });
}

TEST(NodeMemoryFailure, a_rank_that_has_no_memory_of_its_own_either_is_an_error_on_all) {
  constexpr std::size_t bytes = std::size_t{32} << 20;
  for_each_culprit([](const Communicator& ranks, int culprit) {
    ranks.placement();
    ranks.barrier();
    const std::size_t open = descriptors(), mapped = testing::address_space();
    bool collective = false;
    {
      std::optional<Limit> limit;
      if (world().rank() == culprit) {
        limit.emplace(RLIMIT_AS, testing::address_space() + bytes / 2);
      }
      const auto make = [&] {
        try {
          SharedBuffer<float>(ranks, bytes / sizeof(float));
        } catch (const Error& error) {
          collective = error.collective();
          throw;
        }
      };
      EXPECT_TRUE(
          throws<Error>(make, "no memory of ",
                        " bytes: mmap: Cannot allocate memory on rank " + std::to_string(culprit)));
    }
    EXPECT_TRUE(collective);
    EXPECT_EQ(descriptors(), open);
    EXPECT_LT(testing::address_space(), mapped + bytes);
    world().barrier();
    EXPECT_EQ(names_left(), 0U);
    EXPECT_EQ(ranks.all_reduce(1.0), ranks.size());
  });
}

TEST(NodeMemoryFailure, more_numbers_than_there_are_addresses_are_an_error_on_all) {
  for_each_culprit([](const Communicator& ranks, int) {
    // As bytes, these would be few.
    for (const std::size_t size : {(std::size_t{1} << 61) + 2, (std::size_t{1} << 63) + 1}) {
      EXPECT_TRUE(throws<Error>([&] { SharedBuffer<double>(ranks, size); }, "no memory of ",
                                std::to_string(size)));
    }
  });
}

}  // namespace lockstep
