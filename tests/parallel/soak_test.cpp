// A long run takes no more memory than a short one.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include "comm/placements.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(2, 4);

namespace lockstep {
namespace {

using testing::arrangements;
using testing::world;

std::ptrdiff_t open_files() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

std::int64_t resident_bytes() {
  std::int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

TEST(Soak, tens_of_thousands_of_steps_take_no_memory) {
  // The sanitizers keep what was freed for a while.
#if defined(__SANITIZE_ADDRESS__)
  int steps = 2000;
#else
  const char* const asked = std::getenv("LOCKSTEP_SOAK_STEPS");
  int steps = asked != nullptr ? std::atoi(asked) : world().size() > 2 ? 20000 : 100000;
#endif
  constexpr std::int64_t most_growth = std::int64_t{1} << 20;
  for (const auto& arrangement : arrangements()) {
    if (!arrangement.options.share_memory) continue;
    const Communicator ranks(world().handle(), arrangement.options);
    if (world().size() > 2 && arrangement.name != "one node") steps = 2000;
    Parameter a("a", Tensor::full({5, 3}, 1)), b("b", Tensor::full({700}, 1)),
        c("c", Tensor::full({3}, 1, DType::f64));
    const GradientReducer reducer({a, b, c}, ranks, {.bucket_bytes = 100});
    NamedOptimizer optimizer({a, b, c}, optim::SGD({.lr = 1e-6, .momentum = 0.9}));
    std::int64_t before = 0;
    const std::ptrdiff_t files = open_files();
    for (int step = 0; step < steps; ++step) {
      if (step == steps / 10) before = resident_bytes();
      optimizer.zero_grad();
      const double own = (step + ranks.rank()) % 5;
      if (step % 3 == 0) {
        (sum(a * own) + sum(b)).backward();
      } else {
        sum(c * own).backward();
      }
      optimizer.step();
    }
#if !defined(__SANITIZE_ADDRESS__)
    EXPECT_LT(resident_bytes() - before, most_growth) << arrangement.name;
#else
    static_cast<void>(before);
    static_cast<void>(most_growth);
#endif
    EXPECT_EQ(open_files(), files) << arrangement.name;
    // Replicas have not drifted apart.
    Tensor first = b.value().clone();
    ranks.broadcast(first.span<float>());
    EXPECT_TRUE(bit_equal(first, b.value())) << arrangement.name;
  }
}

}  // namespace
}  // namespace lockstep
