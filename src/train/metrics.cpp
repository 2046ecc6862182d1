#include "lockstep/train/metrics.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "lockstep/core/error.hpp"
#include "train/files.hpp"

namespace lockstep::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view schema = "lockstep.metrics";
constexpr int version = 2;
constexpr int oldest_version = 1;  // without lists

std::string header_line() {
  return fmt::format(R"({{"schema": "{}", "version": {}}})", schema, version);
}

struct Line {
  std::string text;
  MetricRecord record;
};

std::string to_json(const MetricRecord& record) {
  Json object = Json::object();
  for (const Metric& metric : record) {
    if (metric.name.empty()) throw NameError("a metric needs a name, found an empty one");
    if (object.contains(metric.name)) {
      throw NameError(fmt::format("metric '{}' comes twice in a record", metric.name));
    }
    // dump() writes a number that is not finite as null.
    std::visit([&](const auto& value) { object[metric.name] = value; }, metric.value);
  }
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool fits_int64(const Json& value) {
  constexpr std::uint64_t largest = std::numeric_limits<std::int64_t>::max();
  return value.is_number_unsigned() ? value.get<std::uint64_t>() <= largest
                                    : value.is_number_integer();
}

// A number, or null for what is none; nothing for anything else.
std::optional<double> parse_number(const Json& value) {
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
}

std::optional<std::vector<double>> parse_list(const Json& array) {
  std::vector<double> list;
  for (const Json& element : array) {
    const auto number = parse_number(element);
    if (!number) return std::nullopt;
    list.push_back(*number);
  }
  return list;
}

// Nothing where the text is not an object of numbers, strings, nulls, and lists of numbers.
std::optional<MetricRecord> parse_record(std::string_view text) {
  const Json object = Json::parse(text, nullptr, false);
  if (!object.is_object()) return std::nullopt;
  MetricRecord record;
  for (const auto& [name, value] : object.items()) {
    if (fits_int64(value)) {
      record.push_back({name, value.get<std::int64_t>()});
    } else if (const auto number = parse_number(value)) {
      record.push_back({name, *number});
    } else if (value.is_string()) {
      record.push_back({name, value.get<std::string>()});
    } else if (auto list = value.is_array() ? parse_list(value) : std::nullopt) {
      record.push_back({name, std::move(*list)});
    } else {
      return std::nullopt;
    }
  }
  return record;
}

void check_header(std::string_view text, const std::string& path) {
  const Json header = Json::parse(text, nullptr, false);
  if (!header.is_object() || header.value("schema", Json()) != schema) {
    throw DataError(fmt::format("{}: expected a first line {}, found '{}'", path, header_line(),
                                text.substr(0, 80)));
  }
  const Json found = header.value("version", Json());
  if (!fits_int64(found) || found < oldest_version || found > version) {
    throw DataError(fmt::format("{}: expected {} version {} to {}, found {}", path, schema,
                                oldest_version, version, found.dump()));
  }
}

// The records of a log; a last line that is not whole is left out.
std::vector<Line> parse(std::string_view text, const std::string& path) {
  std::vector<Line> lines;
  const bool torn_header = header_line().starts_with(text);
  for (std::size_t number = 1; !text.empty() && !torn_header; ++number) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    const bool last = end == std::string_view::npos;
    text.remove_prefix(last ? text.size() : end + 1);
    if (number == 1) {
      check_header(line, path);
    } else if (auto record = parse_record(line)) {
      lines.push_back({std::string(line), std::move(*record)});
    } else if (!last) {
      throw DataError(
          fmt::format("{}: line {}: expected an object of numbers, strings and lists, found '{}'",
                      path, number, line.substr(0, 80)));
    }
  }
  return lines;
}

std::string join(const std::vector<Line>& lines) {
  std::string text = header_line() + "\n";
  for (const Line& line : lines) text += line.text + "\n";
  return text;
}

bool is_beyond(const MetricRecord& record, std::string_view key, double limit) {
  for (const auto& [name, value] : record) {
    if (name != key) continue;
    if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      return static_cast<double>(*integer) > limit;
    }
    const auto* number = std::get_if<double>(&value);
    return number != nullptr && *number > limit;
  }
  return false;
}

}  // namespace

MetricsLog::MetricsLog(const std::string& path, MetricsMode mode) : path_(path) {
  std::error_code error;
  std::string text;
  std::vector<Line> lines;
  if (mode == MetricsMode::resume && std::filesystem::exists(path, error)) {
    text = read_file(path);
    lines = parse(text, path);
  }
  const std::string whole = join(lines);
  if (text != whole) replace_file(path, whole);
  open();
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void MetricsLog::open() {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) throw_system_error(path_, "open it");
}

void MetricsLog::append(const MetricRecord& record) {
  const std::string line = to_json(record) + "\n";
  if (descriptor_ < 0) open();
  const off_t size = ::lseek(descriptor_, 0, SEEK_END);
  if (write_all(descriptor_, line)) return;
  // Half a line would spoil the next one.
  const int reason = errno;
  [[maybe_unused]] const bool restored = size >= 0 && ::ftruncate(descriptor_, size) == 0;
  errno = reason;
  throw_system_error(path_, "write to it");
}

void MetricsLog::keep_until(std::string_view key, double value) {
  std::vector<Line> lines = parse(read_file(path_), path_);
  const auto dropped =
      std::erase_if(lines, [&](const Line& line) { return is_beyond(line.record, key, value); });
  if (dropped == 0) return;
  replace_file(path_, join(lines));
  ::close(descriptor_);
  open();
}

std::vector<MetricRecord> read_metrics(const std::string& path) {
  std::vector<MetricRecord> records;
  for (Line& line : parse(read_file(path), path)) records.push_back(std::move(line.record));
  return records;
}

}  // namespace lockstep::train
