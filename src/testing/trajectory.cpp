#include "lockstep/testing/trajectory.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "lockstep/core/error.hpp"
#include "testing/trajectory_values.hpp"

namespace lockstep::testing {
namespace {

constexpr const char* update_variable = "LOCKSTEP_TEST_UPDATE";
constexpr const char* how_to_store = "LOCKSTEP_TEST_UPDATE=1 in the environment stores this run";

bool is_update() {
  const char* text = std::getenv(update_variable);
  return text != nullptr && *text != '\0' && std::string_view(text) != "0";
}

std::string read_trajectory(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw StateError(fmt::format("{} cannot be read; {}", file, how_to_store));
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  try {
    from_file(text);
  } catch (const StateError& error) {
    throw StateError(fmt::format("{} is no trajectory: {}; {}", file, error.what(), how_to_store));
  }
  return text;
}

void write_trajectory(const std::string& file, const std::string& text) {
  const std::string temporary = file + ".new";
  std::ofstream stream(temporary, std::ios::binary);
  stream << text << std::flush;
  std::error_code error;
  if (stream) std::filesystem::rename(temporary, file, error);
  if (!stream || error) throw StateError(fmt::format("{} cannot be written", file));
}

// What is not alike in the values of a step, a line each.
std::vector<std::string> differences(const TrajectoryStep& found, const TrajectoryStep& stored,
                                     const Tolerance& tolerance) {
  std::vector<std::string> lines;
  for (const auto& [name, value] : stored.values) {
    const Json* own = found.find(name);
    if (own == nullptr) {
      lines.push_back(fmt::format("{}: is stored, and not found", name));
    } else if (const auto text = difference(*own, value, tolerance)) {
      lines.push_back(fmt::format("{}: {}", name, *text));
    }
  }
  for (const auto& [name, value] : found.values) {
    if (stored.find(name) == nullptr) {
      lines.push_back(fmt::format("{}: is found, and not stored", name));
    }
  }
  return lines;
}

std::string last_step(const std::vector<TrajectoryStep>& steps) {
  return steps.empty() ? "has no step" : fmt::format("ends with step {}", steps.back().step);
}

// Of the first step that differs; nothing where none does.
std::string first_difference(const std::vector<TrajectoryStep>& found,
                             const std::vector<TrajectoryStep>& stored,
                             const Tolerance& tolerance) {
  constexpr std::size_t most_lines = 10;
  for (std::size_t i = 0; i < std::min(found.size(), stored.size()); ++i) {
    if (found[i].step != stored[i].step) {
      return fmt::format("step {} is stored, where step {} is found", stored[i].step,
                         found[i].step);
    }
    const std::vector<std::string> lines = differences(found[i], stored[i], tolerance);
    if (lines.empty()) continue;
    std::string text = fmt::format("step {} is the first that differs, in {} of {} values",
                                   found[i].step, lines.size(), stored[i].values.size());
    for (std::size_t line = 0; line < std::min(lines.size(), most_lines); ++line) {
      text += "\n  " + lines[line];
    }
    if (lines.size() > most_lines) {
      text += fmt::format("\n  and {} more", lines.size() - most_lines);
    }
    return text;
  }
  if (found.size() == stored.size()) return {};
  return fmt::format("what is stored {}, what is found {}", last_step(stored), last_step(found));
}

}  // namespace

struct Trajectory::Recording {
  std::vector<TrajectoryStep> steps;

  void add(std::int64_t step, const std::string& name, const StateValue& value) {
    if (const auto* dict = std::get_if<StateDict>(&value.variant())) {
      for (const auto& [key, entry] : *dict)
        add(step, name.empty() ? key : name + "." + key, entry);
      return;
    }
    if (const auto* list = std::get_if<StateList>(&value.variant())) {
      for (std::size_t i = 0; i < list->size(); ++i) {
        add(step, fmt::format("{}.{}", name, i), (*list)[i]);
      }
      return;
    }
    if (!steps.empty() && step < steps.back().step) {
      throw OptionError(
          fmt::format("step {} of {} comes after step {}", step, name, steps.back().step));
    }
    const bool is_new = steps.empty() || step > steps.back().step;
    if (!is_new && steps.back().find(name) != nullptr) {
      throw OptionError(fmt::format("step {} has two values of {}", step, name));
    }
    Json described = describe_value(name, value);
    if (is_new) steps.push_back({step, {}});
    steps.back().values.emplace_back(name, std::move(described));
  }
};

Trajectory::Trajectory(std::string file, const Communicator& ranks, const Tolerance& tolerance)
    : file_(std::move(file)),
      ranks_(ranks),
      tolerance_(tolerance),
      recording_(std::make_unique<Recording>()) {}

Trajectory::~Trajectory() = default;

void Trajectory::record(std::int64_t step, std::string_view name, const StateValue& value) {
  recording_->add(step, std::string(name), value);
}

void Trajectory::record(std::int64_t step, const StateDict& state) {
  recording_->add(step, "", state);
}

::testing::AssertionResult Trajectory::matches() const {
  const std::vector<TrajectoryStep>& own = recording_->steps;
  const bool prints = ranks_.rank() == 0;
  const bool update = ranks_.all_reduce(std::int64_t{prints && is_update()}, ReduceOp::max) != 0;
  std::string stored;
  try {
    ranks_.agree([&] {
      if (prints) stored = update ? to_file(own) : read_trajectory(file_);
    });
  } catch (const StateError& error) {
    return ::testing::AssertionFailure() << error.what();
  }
  ranks_.broadcast(stored);
  std::string text;
  try {
    text = first_difference(own, from_file(stored), update ? Tolerance() : tolerance_);
  } catch (const Json::exception& error) {
    text = fmt::format("a value of the file is none of a trajectory: {}", error.what());
  }
  const auto none = static_cast<std::int64_t>(ranks_.size());
  const std::int64_t rank =
      ranks_.all_reduce(text.empty() ? none : std::int64_t{ranks_.rank()}, ReduceOp::min);
  if (rank == none) {
    if (!update) return ::testing::AssertionSuccess();
    try {
      ranks_.agree([&] {
        if (prints) write_trajectory(file_, stored);
      });
    } catch (const StateError& error) {
      return ::testing::AssertionFailure() << error.what();
    }
    if (prints) fmt::print("{}: {} steps are stored\n", file_, own.size());
    return ::testing::AssertionSuccess();
  }
  ranks_.broadcast(text, static_cast<int>(rank));
  if (update) {
    return ::testing::AssertionFailure() << fmt::format(
               "{} is left as it is, since rank {} differs from rank 0: {}", file_, rank, text);
  }
  return ::testing::AssertionFailure()
         << fmt::format("{} on rank {}: {}\n{} instead", file_, rank, text, how_to_store);
}

}  // namespace lockstep::testing
