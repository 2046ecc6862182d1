// What a simulation's process sees of lockstep: nothing that was not as it is now.

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cfenv>
#include <chrono>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "train/whole_road.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 4);

extern char** environ;

namespace lockstep {
namespace {

using testing::whole_road;
using testing::world;

std::set<std::string> entries(const char* folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code gone;
    std::string target = entry.path().filename();
    const auto link = std::filesystem::read_symlink(entry.path(), gone);
    if (!gone) target += " " + link.string();
    names.insert(target);
  }
  return names;
}

// The road, with MPI's own threads, files and memory for it made before.
void warm_up() { whole_road(world().handle()); }

void road() {
  whole_road(world().handle());
  world().barrier();
}

TEST(HostProcess, keeps_its_signal_handlers_and_mask) {
  warm_up();
  struct Signals {
    std::vector<struct sigaction> actions = std::vector<struct sigaction>(65);
    sigset_t mask{};
    Signals() {
      for (int signal = 1; signal < 65; ++signal) {
        sigaction(signal, nullptr, &actions[static_cast<std::size_t>(signal)]);
      }
      sigprocmask(SIG_SETMASK, nullptr, &mask);
    }
  };
  const Signals before;
  road();
  const Signals after;
  for (std::size_t signal = 1; signal < 65; ++signal) {
    EXPECT_EQ(reinterpret_cast<void*>(after.actions[signal].sa_handler),
              reinterpret_cast<void*>(before.actions[signal].sa_handler))
        << signal;
    EXPECT_EQ(after.actions[signal].sa_flags, before.actions[signal].sa_flags) << signal;
    EXPECT_EQ(sigismember(&after.mask, static_cast<int>(signal)),
              sigismember(&before.mask, static_cast<int>(signal)))
        << signal;
  }
}

TEST(HostProcess, keeps_its_rounding_mode) {
  for (const int mode : {FE_UPWARD, FE_TOWARDZERO, FE_DOWNWARD, FE_TONEAREST}) {
    std::fesetround(mode);
    road();
    EXPECT_EQ(std::fegetround(), mode);
  }
}

// Denormal numbers stay: their flushing is a mode of the processor that some libraries switch on.
TEST(HostProcess, keeps_its_denormal_numbers) {
  road();
  volatile double least = 1e-308;
  EXPECT_GT(least / 1e10, 0);
  volatile float least_float = 1e-38F;
  EXPECT_GT(least_float / 100, 0);
}

// Many simulations are built to stop at the first invalid operation, overflow or division by zero.
TEST(HostProcess, can_trap_invalid_operations) {
  std::feclearexcept(FE_ALL_EXCEPT);
  const int traps = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW;
  feenableexcept(traps);
  road();
  const int after = fegetexcept();
  fedisableexcept(FE_ALL_EXCEPT);
  EXPECT_EQ(after, traps);
}

TEST(HostProcess, keeps_its_random_numbers) {
  const auto draw = [](const std::function<void()>& between) {
    std::srand(5);
    srandom(6);
    srand48(7);
    std::vector<double> drawn{static_cast<double>(std::rand()), static_cast<double>(random()),
                              drand48()};
    between();
    for (int i = 0; i < 3; ++i) {
      drawn.push_back(static_cast<double>(std::rand()));
      drawn.push_back(static_cast<double>(random()));
      drawn.push_back(drand48());
    }
    return drawn;
  };
  const std::vector<double> expected = draw([] {});
  // MPI may draw numbers of its own while it connects ranks.
  warm_up();
  EXPECT_EQ(draw(road), expected);
}

TEST(HostProcess, has_its_output_to_itself) {
  warm_up();
  std::fflush(nullptr);
  char path[] = "/tmp/lockstep-output-XXXXXX";
  const int file = mkstemp(path);
  ASSERT_GE(file, 0);
  const int out = dup(1), err = dup(2);
  dup2(file, 1);
  dup2(file, 2);
  road();
  std::fflush(nullptr);
  dup2(out, 1);
  dup2(err, 2);
  const auto written = std::filesystem::file_size(path);
  close(file);
  close(out);
  close(err);
  unlink(path);
  EXPECT_EQ(written, 0U);
}

TEST(HostProcess, keeps_its_threads_files_and_memory_files) {
  warm_up();
  const auto tasks = entries("/proc/self/task"), files = entries("/proc/self/fd"),
             memory = entries("/dev/shm");
  road();
  EXPECT_EQ(entries("/proc/self/task"), tasks);
  EXPECT_EQ(entries("/proc/self/fd").size(), files.size());
  // Other jobs of the machine have such files too, each for a moment.
  const auto is_new = [&](const std::string& name) {
    return !memory.contains(name) && name.find("lockstep") != std::string::npos;
  };
  std::set<std::string> made = entries("/dev/shm");
  std::erase_if(made, [&](const std::string& name) { return !is_new(name); });
  for (int i = 0; i < 500 && !made.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const std::set<std::string> left = entries("/dev/shm");
    std::erase_if(made, [&](const std::string& name) { return !left.contains(name); });
  }
  EXPECT_TRUE(made.empty()) << *made.begin();
}

TEST(HostProcess, keeps_its_surroundings) {
  const auto surroundings = [] {
    std::vector<std::string> found{std::filesystem::current_path(),
                                   std::setlocale(LC_ALL, nullptr)};
    const mode_t mask = umask(0);
    umask(mask);
    found.push_back(std::to_string(mask));
    cpu_set_t cores;
    CPU_ZERO(&cores);
    sched_getaffinity(0, sizeof(cores), &cores);
    found.emplace_back(reinterpret_cast<const char*>(&cores), sizeof(cores));
    for (char** variable = environ; *variable != nullptr; ++variable) found.emplace_back(*variable);
    return found;
  };
  std::setlocale(LC_ALL, "C");
  const auto before = surroundings();
  road();
  EXPECT_EQ(surroundings(), before);
}

}  // namespace
}  // namespace lockstep
