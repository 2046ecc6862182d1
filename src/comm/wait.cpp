#include "comm/wait.hpp"

#include <fmt/format.h>

#include <string>

#include "comm/calls.hpp"
#include "comm/check.hpp"
#include "comm/kept_communicator.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {

Wait::Wait(const Communicator& ranks) noexcept
    : Wait(ranks.rank(), ranks.options().deadline, true) {
  kept_ = Calls::kept(ranks).get();
}

bool Wait::has_time() noexcept {
  if (deadline_.count() == 0) return true;
  const Clock::time_point now = Clock::now();
  if (begin_ == Clock::time_point()) begin_ = now;
  return now - begin_ < deadline_;
}

void Wait::give_up(std::string_view what) const {
  if (kept_ != nullptr) kept_->settled = false;
  const std::string who = rank_ < 0 ? "this rank" : fmt::format("rank {}", rank_);
  throw DeadlineError(fmt::format("{} has waited {} s for {}", who,
                                  static_cast<double>(deadline_.count()) / 1000, what));
}

void Wait::finish(MPI_Request& request, const char* what, int rank) {
  // MPI_Test yields the core where MPI was told to.
  constexpr unsigned tests_between_looks = 64;
  int done = 0;
  for (unsigned tests = 0; done == 0; ++tests) {
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0 || tests % tests_between_looks != 0 || has_time()) continue;
    give_up(rank < 0 ? std::string(what) : fmt::format("{} rank {}", what, rank));
  }
}

}  // namespace lockstep::comm
