#include "lockstep/parallel/timeline.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>

#include "lockstep/core/error.hpp"
#include "lockstep/core/timeline.hpp"
#include "parallel/environment_timeline.hpp"

namespace lockstep {
namespace {

std::string first_line(const std::string& file) {
  std::string line;
  std::ifstream stream(file);
  std::getline(stream, line);
  std::getline(stream, line);
  return line;
}

void begin_file(const std::string& file, const std::string& mark) {
  std::ofstream stream(file, std::ios::trunc);
  stream << "[\n" << mark << '\n';
  if (!stream.flush()) {
    throw DataError(fmt::format("cannot write a timeline to '{}'", file));
  }
}

}  // namespace

void start_timeline(const std::string& file, const Communicator& communicator) {
  communicator.agree([] {
    if (timeline::enabled()) throw StateError("a timeline is being recorded already");
  });
  // By a mark in it, other machines can tell whether they see the file of rank 0.
  std::string mark;
  if (communicator.rank() == 0) {
    std::random_device random;
    mark = fmt::format(
        "{{\"name\":\"lockstep\",\"ph\":\"M\",\"pid\":0,\"args\":{{\"run\":\"{:08x}{:08x}\"}}}},",
        random(), random());
  }
  communicator.broadcast(mark);
  communicator.agree([&] {
    if (communicator.rank() == 0) begin_file(file, mark);
  });
  communicator.agree([&] {
    if (communicator.placement().node_rank == 0 && first_line(file) != mark) begin_file(file, mark);
  });
  // Time 0 is when a rank begins, so all begin together: who has just left a barrier is in step.
  for (int i = 0; i < 3; ++i) communicator.barrier();
  try {
    communicator.agree([&] { timeline::start(file, communicator.rank()); });
  } catch (const Error&) {
    timeline::stop();
    throw;
  }
}

void start_environment_timeline(const Communicator& communicator) {
  static std::string written;  // by this process: not to be replaced by a later reducer's
  const char* file = std::getenv("LOCKSTEP_TIMELINE");
  const bool wanted = file != nullptr && *file != '\0' && !timeline::enabled() && written != file;
  if (communicator.all_reduce(std::int64_t{wanted}, ReduceOp::min) == 0) return;
  start_timeline(file, communicator);
  written = file;
}

}  // namespace lockstep
