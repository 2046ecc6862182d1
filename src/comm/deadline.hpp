#pragma once

#include <chrono>
#include <string_view>

namespace lockstep::comm {

/// So many seconds; OptionError where that is negative or not finite. `name` is for its message.
std::chrono::milliseconds deadline_of(double seconds, std::string_view name);

}  // namespace lockstep::comm
