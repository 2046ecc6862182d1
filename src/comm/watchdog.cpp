#include "lockstep/comm/watchdog.hpp"

#include "comm/watchdog_thread.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::mpi {

Watchdog::Watchdog(const Communicator& ranks, const WatchdogOptions& options) {
  ranks.agree([&] {
    if (comm::WatchdogThread::current() != nullptr) {
      throw StateError("this process has a watchdog already");
    }
    if (options.grace.count() < 0) throw OptionError("the grace of a watchdog is negative");
    if (options.signal < 0 || options.signal > SIGRTMAX) {
      throw OptionError("the signal of a watchdog: expected one from 0 to " +
                        std::to_string(SIGRTMAX) + ", found " + std::to_string(options.signal));
    }
  });
  thread_ = std::make_unique<comm::WatchdogThread>(ranks, options);
}

Watchdog::~Watchdog() = default;

std::string Watchdog::report(std::string_view headline) const { return thread_->report(headline); }

}  // namespace lockstep::mpi
