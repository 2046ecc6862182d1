#include "bindings/ranks.hpp"

#include "bindings/call.hpp"
#include "comm/deadline.hpp"
#include "lockstep/bindings/ranks.h"
#include "lockstep/comm/environment.hpp"
#include "lockstep/comm/watchdog.hpp"
#include "lockstep/core/checked_cast.hpp"

namespace lockstep::bindings {
namespace {

struct EnvironmentObject : ObjectOf<EnvironmentObject> {
  static constexpr std::string_view name = "environment";

  EnvironmentObject(int& argc, char**& argv) : environment(argc, argv) {}

  mpi::Environment environment;
};

struct WatchdogObject : ObjectOf<WatchdogObject> {
  static constexpr std::string_view name = "watchdog";

  WatchdogObject(const Communicator& ranks, const mpi::WatchdogOptions& options)
      : watchdog(ranks, options) {}

  mpi::Watchdog watchdog;
};

void create_communicator(MPI_Comm original, const lockstep_option* options,
                         lockstep_communicator* result) {
  OptionReader reader = reader_of("communicator", options);
  CommunicatorOptions chosen{.share_memory = reader.flag("share_memory", true)};
  if (reader.has("node")) chosen.node = checked_cast<int>(reader.integer("node"), "option 'node'");
  if (reader.has("deadline"))
    chosen.deadline = comm::deadline_of(reader.number("deadline"), "option 'deadline'");
  reader.finish();
  create<CommunicatorObject>(result, original, chosen);
}

void create_watchdog(lockstep_communicator communicator, const lockstep_option* options,
                     lockstep_watchdog* result) {
  OptionReader reader = reader_of("watchdog", options);
  mpi::WatchdogOptions chosen;
  if (reader.has("signal")) {
    chosen.signal = checked_cast<int>(reader.integer("signal"), "option 'signal'");
  }
  if (reader.has("grace")) {
    chosen.grace = comm::deadline_of(reader.number("grace"), "option 'grace'");
  }
  reader.finish();
  create<WatchdogObject>(result, communicator_of(communicator), chosen);
}

}  // namespace
}  // namespace lockstep::bindings

using namespace lockstep::bindings;

lockstep_status lockstep_environment_create(int* argc, char*** argv, lockstep_environment* result) {
  return call([&] {
    int no_arguments = 0;
    char** none = nullptr;
    create<EnvironmentObject>(result, argc != nullptr ? *argc : no_arguments,
                              argv != nullptr ? *argv : none);
  });
}

lockstep_status lockstep_communicator_create(MPI_Comm communicator, const lockstep_option* options,
                                             lockstep_communicator* result) {
  return call([&] { create_communicator(communicator, options, result); });
}

lockstep_status lockstep_communicator_create_f(MPI_Fint communicator,
                                               const lockstep_option* options,
                                               lockstep_communicator* result) {
  return call([&] { create_communicator(MPI_Comm_f2c(communicator), options, result); });
}

lockstep_status lockstep_communicator_rank(lockstep_communicator communicator, int* result) {
  return call([&] { *check_pointer(result, "result") = communicator_of(communicator).rank(); });
}

lockstep_status lockstep_communicator_size(lockstep_communicator communicator, int* result) {
  return call([&] { *check_pointer(result, "result") = communicator_of(communicator).size(); });
}

lockstep_status lockstep_communicator_close(lockstep_communicator communicator) {
  return call([&] { communicator_of(communicator).close(); });
}

lockstep_status lockstep_watchdog_create(lockstep_communicator communicator,
                                         const lockstep_option* options,
                                         lockstep_watchdog* result) {
  return call([&] { create_watchdog(communicator, options, result); });
}
