#pragma once

#include <functional>
#include <string_view>

#pragma GCC visibility push(default)

namespace lockstep {

enum class LogLevel { info, warning };

using LogCallback = std::function<void(LogLevel, std::string_view message)>;

/// Sets where the library's notices go, for the whole process; an empty callback silences them,
/// which is the default: the library itself never prints. The callback may be called from any
/// thread.
void set_log_callback(LogCallback callback);

/// Hands a notice to the callback, if there is one.
void log(LogLevel level, std::string_view message);

}  // namespace lockstep

#pragma GCC visibility pop
