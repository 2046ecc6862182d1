// All-reduces of floats beside MPI_Allreduce on the same communicator.

#include <fmt/format.h>
#include <mpi.h>

#include <cstddef>
#include <lockstep/comm/environment.hpp>
#include <lockstep/comm/shared_buffer.hpp>
#include <lockstep/core/error.hpp>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/check.hpp"
#include "lockstep/core/checked_cast.hpp"
#include "program.hpp"

namespace {

using namespace lockstep;

// In microseconds, as the table has them.
bench::Measurement measure(const Communicator& ranks, double seconds,
                           const std::vector<std::function<void()>>& calls) {
  const std::vector<double> times = bench::median_times(ranks, seconds, calls);
  return {.value = times[0] * 1e6, .peer = times[1] * 1e6};
}

bench::Case shared(const Communicator& ranks, std::size_t size) {
  const auto buffer = std::make_shared<SharedBuffer<float>>(ranks, size);
  if (!buffer->shared()) throw StateError("the memory of the nodes cannot be shared here");
  const auto sent = std::make_shared<std::vector<float>>(size, 1.0F);
  const auto received = std::make_shared<std::vector<float>>(size);
  for (float& value : buffer->values()) value = 1;
  return [=, &ranks](double seconds) {
    return measure(
        ranks, seconds,
        {[&] { buffer->all_reduce(); },
         [&] {
           check_mpi(MPI_Allreduce(sent->data(), received->data(), checked_cast<int>(size, "size"),
                                   MPI_FLOAT, MPI_SUM, ranks.handle()),
                     "MPI_Allreduce");
         }});
  };
}

bench::Case ordinary(const Communicator& ranks, std::size_t size) {
  // Zeros, since the sum takes their place.
  const auto values = std::make_shared<std::vector<float>>(size);
  return [=, &ranks](double seconds) {
    return measure(
        ranks, seconds,
        {[&] { ranks.all_reduce(std::span(*values)); },
         [&] {
           check_mpi(MPI_Allreduce(MPI_IN_PLACE, values->data(), checked_cast<int>(size, "size"),
                                   MPI_FLOAT, MPI_SUM, ranks.handle()),
                     "MPI_Allreduce");
         }});
  };
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    if (argc != 2)
      throw OptionError("usage: all_reduce ARRANGEMENT, which the names of cases have");
    const std::string arrangement = argv[1];
    const Communicator world(MPI_COMM_WORLD);
    constexpr std::size_t k = 1024, m = k * k;
    std::map<std::string, bench::SetUp> cases;
    for (const auto& [label, size] :
         std::initializer_list<std::pair<const char*, std::size_t>>{{"1", 1},
                                                                    {"1k", k},
                                                                    {"16k", 16 * k},
                                                                    {"256k", 256 * k},
                                                                    {"1M", m},
                                                                    {"4M", 4 * m},
                                                                    {"16M", 16 * m},
                                                                    {"64M", 64 * m}}) {
      const std::size_t count = size;
      cases[fmt::format("shared-{}-{}", arrangement, label)] = [&world, count] {
        return shared(world, count);
      };
      cases[fmt::format("ordinary-{}-{}", arrangement, label)] = [&world, count] {
        return ordinary(world, count);
      };
    }
    bench::serve(world, cases);
    return 0;
  });
}
