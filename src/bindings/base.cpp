#include "lockstep/bindings/base.h"

#include <string>

#include "bindings/call.hpp"
#include "bindings/last_error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/core/version.hpp"

namespace lockstep::bindings {
namespace {

thread_local std::string last_message;
thread_local bool last_is_collective = false;
thread_local bool message_was_lost = false;

}  // namespace

void set_last_error(const char* message, bool collective) noexcept {
  last_is_collective = collective;
  try {
    last_message = message;
    message_was_lost = false;
  } catch (...) {
    message_was_lost = true;
  }
}

}  // namespace lockstep::bindings

using namespace lockstep::bindings;

const char* lockstep_last_error() {
  return message_was_lost ? "there is no memory for the message" : last_message.c_str();
}

int lockstep_last_error_is_collective() { return last_is_collective ? 1 : 0; }

const char* lockstep_version() { return lockstep::version().data(); }

lockstep_status lockstep_free(void* handle) {
  return call([&] { free_handle(handle); });
}

lockstep_status lockstep_set_log_callback(lockstep_log_callback callback, void* context) {
  return call([&] {
    if (callback == nullptr) return lockstep::set_log_callback({});
    lockstep::set_log_callback([=](lockstep::LogLevel level, std::string_view message) {
      const std::string text(message);
      callback(context,
               level == lockstep::LogLevel::warning ? LOCKSTEP_LOG_WARNING : LOCKSTEP_LOG_INFO,
               text.c_str());
    });
  });
}
