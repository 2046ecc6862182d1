// Backwards and their reduction, on any number of hosts, for scripts/scaling.

#include <fmt/format.h>
#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <lockstep/comm/environment.hpp>
#include <lockstep/parallel/gradient_reducer.hpp>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "program.hpp"

using namespace lockstep;

namespace {

constexpr std::int64_t numbers_of_layer = 1 << 14;  // 64 KiB

/// Backwards in which the gradients of the layers become ready one after the other, at equal distances
/// of time. A rank sleeps in between, since hosts that share the cores of one machine cannot compute at
/// the same time.
class Training {
 public:
  using Milliseconds = std::chrono::duration<double, std::milli>;

  Training(const Communicator& ranks, std::int64_t layers, Milliseconds backward)
      : parameters_(bench::normal_parameters(layers, numbers_of_layer)),
        reducer_(parameters_, ranks),
        of_layer_(backward / layers) {}

  void step() {
    const auto begin = std::chrono::steady_clock::now();
    int ready = 0;
    for (auto layer = parameters_.rbegin(); layer != parameters_.rend(); ++layer) {
      if (of_layer_.count() > 0) std::this_thread::sleep_until(begin + ++ready * of_layer_);
      reducer_.mark_ready(layer->parameter);
    }
    reducer_.finish();
  }

 private:
  std::vector<NamedParameter> parameters_;
  GradientReducer reducer_;
  Milliseconds of_layer_;
};

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const Communicator world(MPI_COMM_WORLD);
    std::map<std::string, bench::SetUp> cases;
    for (const int layers : {4, 16, 64, 1024, 1536, 2048}) {
      for (const int backward : {0, 30, 100, 300, 1000}) {
        cases[fmt::format("{}-layers-{}ms", layers, backward)] = [&world, layers, backward] {
          const auto training =
              std::make_shared<Training>(world, layers, Training::Milliseconds(backward));
          return [&world, training](double seconds) -> bench::Measurement {
            const auto times = bench::slowest_times(world, seconds, {[&] { training->step(); }});
            return {1e3 * bench::median(times[0])};
          };
        };
      }
    }
    bench::serve(world, cases);
    return 0;
  });
}
