#include "comm/wait.hpp"

#include <fmt/format.h>

#include <string>

#include "comm/calls.hpp"
#include "comm/check.hpp"
#include "comm/kept_communicator.hpp"
#include "comm/place.hpp"
#include "comm/watchdog_thread.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {

Wait::Wait(const Communicator& ranks) noexcept
    : Wait(ranks.rank(), ranks.options().deadline, true) {
  kept_ = Calls::kept(ranks).get();
}

Wait::~Wait() {
  if (has_told_) Place::go_on();
}

bool Wait::has_time() noexcept {
  const Clock::time_point now = Clock::now();
  if (begin_ == Clock::time_point()) {
    begin_ = now;
    next_word_ = now + before_first_word;
  }
  is_long_ = now >= next_word_;
  return deadline_.count() == 0 || now - begin_ < deadline_;
}

void Wait::tell_place(std::string what) {
  is_long_ = false;
  next_word_ += between_words;
  has_told_ = true;
  Place::wait_for(std::move(what), std::chrono::duration<double>(Clock::now() - begin_).count());
}

void Wait::give_up(std::string_view what) const {
  if (kept_ != nullptr) kept_->settled = false;
  const std::string who = rank_ < 0 ? "this rank" : fmt::format("rank {}", rank_);
  const std::string message = fmt::format("{} has waited {} s for {}", who,
                                          static_cast<double>(deadline_.count()) / 1000, what);
  try {
    Place::wait_for(std::string(what), static_cast<double>(deadline_.count()) / 1000);
  } catch (const std::bad_alloc&) {
    // The report says what was waited for a second ago.
  }
  report_deadline(message);
  Place::go_on();
  throw DeadlineError(message);
}

void Wait::finish(MPI_Request& request, const char* what, int rank) {
  // MPI_Test yields the core where MPI was told to.
  constexpr unsigned tests_between_looks = 64;
  int done = 0;
  for (unsigned tests = 0; done == 0; ++tests) {
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0 || tests % tests_between_looks != 0) continue;
    const auto describe = [&] {
      return rank < 0 ? std::string(what) : fmt::format("{} rank {}", what, rank);
    };
    if (!has_time()) give_up(describe());
    tell(describe);
  }
}

}  // namespace lockstep::comm
