#include "lockstep/core/log.hpp"

#include <mutex>
#include <utility>

namespace lockstep {
namespace {

std::mutex mutex;
LogCallback current;

}  // namespace

void set_log_callback(LogCallback callback) {
  const std::lock_guard lock(mutex);
  current = std::move(callback);
}

void log(LogLevel level, std::string_view message) {
  LogCallback callback;
  {
    const std::lock_guard lock(mutex);
    callback = current;
  }
  if (callback) callback(level, message);
}

}  // namespace lockstep
