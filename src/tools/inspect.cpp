#include "tools/inspect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "tools/state_tree.hpp"
#include "tools/text.hpp"

namespace lockstep::tools {
namespace {

template <class T>
Json summarise(std::span<const T> numbers) {
  std::int64_t nan = 0, infinite = 0;
  double sum = 0;
  const T* least = nullptr;
  const T* greatest = nullptr;
  for (const T& value : numbers) {
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(value)) {
        ++nan;
        continue;
      }
      if (std::isinf(value)) ++infinite;
    }
    if (least == nullptr || value < *least) least = &value;
    if (greatest == nullptr || value > *greatest) greatest = &value;
    sum += static_cast<double>(value);
  }
  const auto json = [](const T* value) -> Json {
    if (value == nullptr) return nullptr;
    if constexpr (std::is_floating_point_v<T>) {
      return number(static_cast<double>(*value));
    } else {
      return *value;
    }
  };
  const auto counted = static_cast<double>(static_cast<std::int64_t>(numbers.size()) - nan);
  return {{"min", json(least)},
          {"max", json(greatest)},
          {"mean", counted == 0 ? Json(nullptr) : number(sum / counted)},
          {"nan", nan},
          {"infinite", infinite}};
}

Json summarise(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::f32:
      return summarise(tensor.span<float>());
    case DType::f64:
      return summarise(tensor.span<double>());
    case DType::i64:
      return summarise(tensor.span<std::int64_t>());
    case DType::u8:
      return summarise(tensor.span<std::uint8_t>());
  }
  return nullptr;
}

Json describe_group(const Json& path, const StateDict& group) {
  Json result{{"path", path}, {"name", scalar(group.at("name"))}, {"params", Json::array()}};
  for (const StateValue& name : group.at("params").as_list()) {
    result["params"].push_back(scalar(name));
  }
  result["hyper_parameters"] = Json::object();
  for (const auto& [name, value] : group) {
    if (name != "name" && name != "params") result["hyper_parameters"][name] = scalar(value);
  }
  return result;
}

// What is to be told of one item of a checkpoint.
class ItemDescription {
 public:
  ItemDescription(const std::string& name, const StateValue& item, bool values) : values_(values) {
    json_ = {{"name", name},
             {"tensors", 0},
             {"numbers", 0},
             {"tensor_bytes", 0},
             {"entries", Json::array()},
             {"param_groups", Json::array()}};
    add(Json::array({name}), item);
  }

  const Json& json() const { return json_; }

 private:
  void add(const Json& path, const StateValue& value) {
    if (path.size() >= 2 && path[path.size() - 2] == "param_groups" && is_param_group(value)) {
      json_["param_groups"].push_back(describe_group(path, value.as_dict()));
      return;
    }
    const auto entries = children(value);
    for (const auto& [key, child] : entries) add(join(path, key), *child);
    if (entries.empty()) add_leaf(path, value);
  }

  void add_leaf(const Json& path, const StateValue& value) {
    Json entry{{"path", path}};
    entry.update(describe(value));
    if (const auto* tensor = std::get_if<Tensor>(&value.variant())) {
      json_["tensors"] = json_["tensors"].get<std::uint64_t>() + 1;
      json_["numbers"] = json_["numbers"].get<std::int64_t>() + tensor->size();
      json_["tensor_bytes"] = json_["tensor_bytes"].get<std::uint64_t>() + tensor->bytes();
      if (values_) entry["values"] = summarise(*tensor);
    }
    json_["entries"].push_back(std::move(entry));
  }

  bool values_;
  Json json_;
};

Json describe_file(const InspectOptions& options) {
  const checkpoint::FileInfo info = checkpoint::file_info(options.file);
  const StateDict state = checkpoint::read_file(options.file);
  Json document{{"schema", "lockstep.inspect"},  {"version", 1},
                {"file", options.file.string()}, {"format_version", info.version},
                {"file_bytes", info.bytes},      {"metadata", Json::array()}};
  if (!info.metadata.empty()) {
    document["metadata"] = ItemDescription("metadata", info.metadata, false).json().at("entries");
  }
  Json items = Json::array();
  for (const auto& [name, item] : state) {
    items.push_back(ItemDescription(name, item, options.values).json());
  }
  for (const char* total : {"tensors", "numbers", "tensor_bytes"}) {
    std::uint64_t sum = 0;
    for (const Json& item : items) sum += item.at(total).get<std::uint64_t>();
    document[total] = sum;
  }
  document["items"] = std::move(items);
  return document;
}

std::string totals_text(const Json& part) {
  return fmt::format("{}, {}, {}", count_text(part.at("tensors"), "tensor"),
                     count_text(part.at("numbers"), "number"), bytes_text(part.at("tensor_bytes")));
}

std::string values_text(const Json& values, std::string_view dtype) {
  if (values.at("min").is_null()) return number_text(values.at("nan")) + " NaN, no other number";
  const Json& mean = values.at("mean");
  return fmt::format(
      "min {}, max {}, mean {}, {} NaN, {} infinite", number_text(values.at("min"), dtype),
      number_text(values.at("max"), dtype),
      mean.is_number() ? fmt::format("{:.6g}", mean.get<double>()) : number_text(mean),
      number_text(values.at("nan")), number_text(values.at("infinite")));
}

struct Row {
  std::string name;
  std::string columns;    // all of one width
  std::string text;       // goes on below its beginning where it is too long
  std::string more = {};  // on a line of its own
};

// A name that is too long for a column stands above its row.
void print_rows(std::string_view indent, const std::vector<Row>& rows) {
  std::size_t width = 0;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  width = std::min<std::size_t>(width, 36);
  for (const Row& row : rows) {
    const bool fits = row.name.size() <= width;
    if (!fits) print_wrapped(indent, row.name);
    print_wrapped(fmt::format("{}{:<{}}  {}", indent, fits ? row.name : "", width, row.columns),
                  row.text);
    if (!row.more.empty()) print_wrapped(fmt::format("{}  ", indent), row.more);
  }
}

Row entry_row(const Json& entry) {
  Json path = entry.at("path");
  if (path.size() > 1) path.erase(0);  // the item, which stands above
  const std::string kind = entry.at("kind");
  const auto columns = [](std::string_view size, std::string_view type) {
    return fmt::format("{:>8}  {:<7}  ", size, type);
  };
  if (kind != "tensor") {
    return {name_text(path), columns("", kind),
            entry.contains("size") ? "empty" : entry_text(entry)};
  }
  const std::string dtype = entry.at("dtype");
  return {name_text(path), columns(bytes_text(entry.at("bytes")), dtype),
          shape_text(entry.at("shape")),
          entry.contains("values") ? values_text(entry.at("values"), dtype) : ""};
}

void print_entries(const Json& entries) {
  std::vector<Row> rows;
  for (const Json& entry : entries) rows.push_back(entry_row(entry));
  print_rows("  ", rows);
}

std::vector<Row> group_rows(const Json& group) {
  std::string params;
  for (const Json& name : group.at("params")) {
    if (!params.empty()) params += ", ";
    params += name_text(name);
  }
  std::vector<Row> rows{{"params", "", params}};
  for (const auto& [name, value] : group.at("hyper_parameters").items()) {
    rows.push_back({name_text(name), "", number_text(value)});
  }
  return rows;
}

}  // namespace

void inspect(const InspectOptions& options) {
  const Json document = describe_file(options);
  if (options.json) {
    fmt::print("{}\n", to_text(document));
    return;
  }
  print_wrapped("", name_text(document.at("file")));
  print_wrapped("",
                fmt::format("format {}, {} bytes: {}", number_text(document.at("format_version")),
                            number_text(document.at("file_bytes")), totals_text(document)));
  if (!document.at("metadata").empty()) fmt::print("\nmetadata\n");
  print_entries(document.at("metadata"));
  for (const Json& item : document.at("items")) {
    fmt::print("\n");
    const std::string totals = item.at("tensors") == 0 ? "" : ": " + totals_text(item);
    print_wrapped("", name_text(item.at("name")) + totals);
    print_entries(item.at("entries"));
    for (const Json& group : item.at("param_groups")) {
      print_wrapped("  ", fmt::format("param group {}", name_text(group.at("name"))));
      print_rows("    ", group_rows(group));
    }
  }
}

}  // namespace lockstep::tools
