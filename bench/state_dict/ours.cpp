// What a name costs in state_dict() and load_state_dict(): 100,000 names against 10,000.

#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <string>

#include "program.hpp"

using namespace lockstep;

namespace {

constexpr std::int64_t many = 100'000, few = 10'000, repeats = many / few;

struct Named {
  explicit Named(std::int64_t count)
      : optimizer(bench::normal_parameters(count, 4), optim::Adam()) {
    optimizer.init_state();
    saved = optimizer.state_dict().clone();
  }

  NamedOptimizer optimizer;
  StateDict saved, taken;
};

void save(Named& named) {
  // Frees the one of before as well: both are paid once a save.
  named.taken = named.optimizer.state_dict();
}

void load(Named& named) { named.optimizer.load_state_dict(named.saved); }

/// Microseconds a name, the peer's with few names, as often as makes the same number of names in all:
/// its memory is then what it has freed itself.
bench::SetUp per_name(void (*call)(Named&)) {
  return [call] {
    const auto large = std::make_shared<Named>(many), small = std::make_shared<Named>(few);
    return [=](double seconds) -> bench::Measurement {
      const auto call_small = [&] {
        for (std::int64_t i = 0; i < repeats; ++i) call(*small);
      };
      const auto times = bench::median_times(seconds, {[&] { call(*large); }, call_small});
      return {1e6 * times[0] / many, 1e6 * times[1] / many};
    };
  };
}

}  // namespace

int main(int argc, char** argv) {
  mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const std::map<std::string, bench::SetUp> cases{{"save-100000", per_name(save)},
                                                    {"load-100000", per_name(load)}};
    bench::serve(Communicator(MPI_COMM_WORLD), cases);
    return 0;
  });
}
