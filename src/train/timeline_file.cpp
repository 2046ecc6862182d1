#include "train/timeline_file.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "lockstep/core/error.hpp"
#include "train/files.hpp"

namespace lockstep::train {
namespace {

using nlohmann::json;

void check_times(const TimelineSpan& span) {
  constexpr double limit = 1e15;  // three decades
  if (span.end >= span.begin && std::abs(span.begin) <= limit && span.end <= limit) return;
  throw DataError(fmt::format("'{}' of rank {} takes from {} to {} microseconds", span.name,
                              span.rank, span.begin, span.end));
}

// Puts the two ends of spans that overlap together.
class TimelineReader {
 public:
  void add(const json& event) {
    const std::string& phase = event.at("ph").get_ref<const std::string&>();
    if (phase != "X" && phase != "b" && phase != "e") return;
    TimelineSpan span{.rank = event.at("pid").get<std::int64_t>(),
                      .name = event.at("name").get<std::string>(),
                      .begin = event.at("ts").get<double>()};
    if (phase == "X") {
      span.end = span.begin + event.at("dur").get<double>();
      check_times(span);
      spans.push_back(std::move(span));
      return;
    }
    const std::pair key(span.rank, event.at("id2").at("local").get<std::string>());
    if (phase == "b") {
      begun_[key] = span.begin;
      return;
    }
    const auto begin = begun_.find(key);
    if (begin == begun_.end()) {
      throw DataError(
          fmt::format("'{}' of rank {} ends without a beginning", span.name, key.first));
    }
    span.end = std::exchange(span.begin, begin->second);
    span.overlapping = true;
    check_times(span);
    spans.push_back(std::move(span));
    begun_.erase(begin);
  }

  std::vector<TimelineSpan> spans;

 private:
  std::map<std::pair<std::int64_t, std::string>, double> begun_;
};

// The text of an array with its end, whether that was there or not.
std::string with_end(std::string text) {
  const auto drop = [&text](std::string_view characters) {
    text.erase(text.find_last_not_of(characters) + 1);
  };
  drop(" \t\r\n");
  if (text.ends_with(']')) text.pop_back();
  drop(" \t\r\n,");
  return text + "]";
}

}  // namespace

std::vector<TimelineSpan> read_timeline(const std::filesystem::path& path) {
  TimelineReader reader;
  // Each event goes as soon as it is read: all of them take many times the memory of the file.
  const auto take = [&reader](int depth, json::parse_event_t event, json& parsed) {
    if (depth != 1 || event != json::parse_event_t::object_end) return true;
    reader.add(parsed);
    return false;
  };
  try {
    const json rest = json::parse(with_end(read_file(path)), take);
    if (!rest.is_array() || !rest.empty()) throw DataError("expected an array of events");
  } catch (const json::exception& error) {
    throw DataError(fmt::format("{}: no timeline: {}", path.string(), error.what()));
  } catch (const DataError& error) {
    throw DataError(fmt::format("{}: no timeline: {}", path.string(), error.what()));
  }
  return std::move(reader.spans);
}

}  // namespace lockstep::train
