#include "comm/deadline.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep {

std::chrono::milliseconds comm::deadline_of(double seconds, std::string_view name) {
  constexpr double most = 1e9;
  if (!(seconds >= 0 && seconds <= most)) {
    throw OptionError(
        fmt::format("{}: expected seconds from 0 to {}, found {}", name, most, seconds));
  }
  // What is given is not for ever, however short.
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(seconds * 1000)));
}

std::chrono::milliseconds default_deadline() {
  const char* text = std::getenv("LOCKSTEP_DEADLINE");
  if (text == nullptr || *text == '\0') return std::chrono::minutes(10);
  double seconds = 0;
  const char* const end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, seconds);
  if (error != std::errc() || rest != end) {
    throw OptionError(
        fmt::format("LOCKSTEP_DEADLINE: expected a number of seconds, found '{}'", text));
  }
  return comm::deadline_of(seconds, "LOCKSTEP_DEADLINE");
}

}  // namespace lockstep
