#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/log.hpp"

namespace lockstep::testing {

/// Keeps what the library logs while it lives, as "warning: MESSAGE" or "info: MESSAGE".
class Log {
 public:
  Log() {
    set_log_callback([this](LogLevel level, std::string_view message) {
      const std::lock_guard lock(mutex_);
      lines_.push_back((level == LogLevel::warning ? "warning: " : "info: ") +
                       std::string(message));
    });
  }
  ~Log() { set_log_callback({}); }
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

}  // namespace lockstep::testing
