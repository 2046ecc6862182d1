// A run that saves its state after every step, for checkpoint_manager_jobs_test.py and scripts/torture, which kill
// it: FOLDER, how many steps, and any signals to stop by, with which it saves for nothing else and takes
// LOCKSTEP_SAVE_SECONDS for it. Rank 0 says which step it has loaded, and after each save which one that was;
// every rank its process, and where it stops. A state that is not that of one step is an error.
#include <mpi.h>

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "lockstep/checkpoint/checkpoint_manager.hpp"
#include "lockstep/comm/environment.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"

using namespace lockstep;

namespace {

/// Numbers all of which change with each step.
class Numbers : public Stateful {
 public:
  void set(std::int64_t step) {
    std::int64_t number = step;
    for (std::int64_t& value : values_.span<std::int64_t>()) value = number += 7 * step + 1;
  }
  bool is_of(std::int64_t step) const {
    Numbers other;
    other.set(step);
    return bit_equal(state_dict(), other.state_dict());
  }

  StateDict state_dict() const override {
    const char* seconds = std::getenv("LOCKSTEP_SAVE_SECONDS");
    if (seconds != nullptr) std::this_thread::sleep_for(std::chrono::seconds(std::atoi(seconds)));
    return {{"values", values_}};
  }
  void check_restore(const StateDict& source) const override {
    if (source.at("values").as_tensor().shape() != values_.shape())
      throw ShapeError("other numbers");
  }
  void restore(const StateDict& source) override {
    values_ = source.at("values").as_tensor().clone();
  }

 private:
  Tensor values_ = Tensor::zeros({1 << 15}, DType::i64);
};

void say(const char* what, std::int64_t number) {
  std::printf("%s %lld\n", what, static_cast<long long>(number));
  std::fflush(stdout);
}

int run(int argc, char** argv) {
  const Communicator world(MPI_COMM_WORLD);
  const bool reports = world.rank() == 0;
  set_log_callback([](LogLevel level, std::string_view message) {
    if (level == LogLevel::warning)
      std::fprintf(stderr, "%.*s\n", static_cast<int>(message.size()), message.data());
  });
  Numbers numbers;
  std::vector<int> signals;
  for (int i = 3; i < argc; ++i) signals.push_back(std::atoi(argv[i]));
  CheckpointManager manager(
      argv[1], world, {{"numbers", numbers}},
      {.every_steps = signals.empty() ? 1 : 0, .keep_last = 2, .signals = signals});
  say("process", getpid());
  std::int64_t step = manager.load_latest().value_or(0);
  if (step > 0 && !numbers.is_of(step)) throw StateError("the state is not that of its step");
  if (reports) say("loaded", step);
  for (const std::int64_t last = step + std::atoll(argv[2]);
       step < last && !manager.stop_requested();) {
    numbers.set(++step);
    if (manager.step(step) && reports) say("saved", step);
    if (reports && step % 10000 == 1) say("at", step);
  }
  say("ended", step);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] { return run(argc, argv); });
}
