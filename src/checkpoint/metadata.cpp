#include "checkpoint/metadata.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cstdlib>
#include <ctime>

#include "lockstep/core/error.hpp"
#include "lockstep/core/version.hpp"
#include "state/records.hpp"

namespace lockstep::checkpoint {
namespace {

// SOURCE_DATE_EPOCH is what https://reproducible-builds.org/specs/source-date-epoch says: seconds.
std::time_t seconds_of_save() {
  const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
  if (fixed == nullptr) return std::time(nullptr);
  char* end = nullptr;
  const long long seconds = std::strtoll(fixed, &end, 10);
  constexpr long long latest = 253402300799;  // of the year 9999
  if (end != fixed && *end == '\0' && seconds >= 0 && seconds <= latest) return seconds;
  throw OptionError(fmt::format("SOURCE_DATE_EPOCH: expected seconds, found '{}'", fixed));
}

}  // namespace

std::string time_of_save() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds_of_save()));
}

std::string rank_name(int rank) { return fmt::format("{}{}", rank_prefix, rank); }

StateDict make_metadata(const StateDict& own, int ranks, const std::string& time) {
  if (!flatten(own).tensors.empty()) {
    throw OptionError("the metadata of a checkpoint have tensors, which only items can have");
  }
  const StateDict added{{"lockstep", version()}, {"ranks", ranks}, {"time", time}};
  StateDict metadata = own;
  for (const auto& [name, value] : added) {
    if (own.contains(name)) {
      throw OptionError(fmt::format(
          "the metadata of a checkpoint have an entry '{}', which a save gives itself", name));
    }
    metadata[name] = value;
  }
  return metadata;
}

StateDict take_metadata(StateDict& state) {
  if (!state.contains(metadata_name)) return {};
  const StateValue value = std::move(state[metadata_name]);
  state.erase(metadata_name);
  const auto* metadata = std::get_if<StateDict>(&value.variant());
  return metadata == nullptr ? StateDict() : *metadata;
}

void check_no_metadata(const StateDict& state) {
  if (!state.contains(metadata_name)) return;
  throw NameError(fmt::format(
      "the state has an entry '{}', which is the name of what SaveOptions::metadata says",
      metadata_name));
}

}  // namespace lockstep::checkpoint
