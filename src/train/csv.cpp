#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "lockstep/train/metrics.hpp"
#include "train/files.hpp"

namespace lockstep::train {
namespace {

using List = std::vector<double>;

// The columns of a name: one for itself, one for each element of a list, or both.
struct Columns {
  std::string name;
  bool single = false;
  std::size_t elements = 0;
};

// In the order of first appearance; `places` tells where a name is.
std::vector<Columns> find_columns(const std::vector<MetricRecord>& records,
                                  std::unordered_map<std::string, std::size_t>& places) {
  std::vector<Columns> all;
  for (const MetricRecord& record : records) {
    for (const auto& [name, value] : record) {
      const auto [place, is_new] = places.try_emplace(name, all.size());
      if (is_new) all.push_back({.name = name});
      Columns& columns = all[place->second];
      if (const auto* list = std::get_if<List>(&value)) {
        columns.elements = std::max(columns.elements, list->size());
      } else {
        columns.single = true;
      }
    }
  }
  return all;
}

std::string field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char character : text) quoted.append(character == '"' ? 2 : 1, character);
  return quoted + "\"";
}

std::string field(double number) {
  return std::isfinite(number) ? fmt::format("{}", number) : std::string();
}

std::string field(std::int64_t number) { return fmt::format("{}", number); }

// A list is in the columns of its elements.
std::string field(const List&) { return {}; }

void add_fields(std::vector<std::string>& fields, const Columns& columns,
                const MetricValue& value) {
  if (columns.single) {
    fields.push_back(std::visit([](const auto& one) { return field(one); }, value));
  }
  const auto* list = std::get_if<List>(&value);
  for (std::size_t i = 0; i < columns.elements; ++i) {
    fields.push_back(list != nullptr && i < list->size() ? field((*list)[i]) : "");
  }
}

std::string line(const std::vector<std::string>& fields) {
  // A line without anything would be no record to many readers.
  if (fields.size() == 1 && fields[0].empty()) return "\"\"\r\n";
  return fmt::format("{}\r\n", fmt::join(fields, ","));
}

std::string header(const std::vector<Columns>& all) {
  std::vector<std::string> fields;
  for (const Columns& columns : all) {
    if (columns.single) fields.push_back(field(columns.name));
    for (std::size_t i = 0; i < columns.elements; ++i) {
      fields.push_back(field(fmt::format("{}.{}", columns.name, i)));
    }
  }
  return line(fields);
}

}  // namespace

void write_csv(const std::string& path, const std::vector<MetricRecord>& records) {
  std::unordered_map<std::string, std::size_t> places;
  const std::vector<Columns> all = find_columns(records, places);
  const MetricValue nothing = List();
  std::string text = header(all);
  for (const MetricRecord& record : records) {
    std::vector<const MetricValue*> values(all.size(), &nothing);
    for (const auto& [name, value] : record) values[places.at(name)] = &value;
    std::vector<std::string> fields;
    for (std::size_t i = 0; i < all.size(); ++i) add_fields(fields, all[i], *values[i]);
    text += line(fields);
  }
  replace_file(path, text);
}

}  // namespace lockstep::train
