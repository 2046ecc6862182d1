#include "tools/diff.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "tools/state_tree.hpp"
#include "tools/tensor_difference.hpp"
#include "tools/text.hpp"

namespace lockstep::tools {
namespace {

Json describe_at(const Json& path, const StateValue& value) {
  Json entry{{"path", path}};
  entry.update(describe(value));
  return entry;
}

// The parameters of a param group go by their names, not by their places.
std::vector<std::pair<Json, const StateValue*>> children_by_name(const Json& path,
                                                                 const StateValue& value) {
  auto entries = children(value);
  if (path.size() >= 3 && path.back() == "params" && path[path.size() - 3] == "param_groups") {
    for (auto& [key, child] : entries) {
      if (const Json name = scalar(*child); name.is_string()) key = name;
    }
  }
  return entries;
}

class Difference {
 public:
  explicit Difference(std::optional<double> tolerance) : tolerance_(tolerance) {}

  void compare(const Json& path, const StateValue& a, const StateValue& b) {
    if (a.kind() != b.kind() || is_other_tensor(a, b)) {
      types_.push_back({{"path", path}, {"a", describe(a)}, {"b", describe(b)}});
      return;
    }
    if (const auto* tensor = std::get_if<Tensor>(&a.variant())) {
      Json difference = tensor_difference(*tensor, b.as_tensor(), tolerance_);
      if (difference.is_null()) return;
      Json entry = describe_at(path, a);
      entry.update(difference);
      tensors_.push_back(std::move(entry));
    } else if (scalar(a).is_null()) {
      compare_children(path, a, b);
    } else if (!are_equal(a, b)) {
      values_.push_back(
          {{"path", path}, {"kind", describe(a).at("kind")}, {"a", scalar(a)}, {"b", scalar(b)}});
    }
  }

  Json json() const {
    const bool equal = only_in_a_.empty() && only_in_b_.empty() && types_.empty() &&
                       values_.empty() && tensors_.empty();
    return {{"equal", equal},  {"only_in_a", only_in_a_}, {"only_in_b", only_in_b_},
            {"types", types_}, {"values", values_},       {"tensors", tensors_}};
  }

 private:
  static bool is_other_tensor(const StateValue& a, const StateValue& b) {
    const auto* tensor = std::get_if<Tensor>(&a.variant());
    return tensor != nullptr &&
           (tensor->dtype() != b.as_tensor().dtype() || tensor->shape() != b.as_tensor().shape());
  }

  bool are_equal(const StateValue& a, const StateValue& b) const {
    const auto* x = std::get_if<double>(&a.variant());
    if (x == nullptr) return bit_equal(a, b);
    const double y = b.as_double();
    const auto tensor = [](const double& value) {
      return Tensor::from(std::span<const double>(&value, 1), Shape{});
    };
    return tensor_difference(tensor(*x), tensor(y), tolerance_).is_null();
  }

  void compare_children(const Json& path, const StateValue& a, const StateValue& b) {
    const auto in_a = children_by_name(path, a), in_b = children_by_name(path, b);
    std::multimap<Json, const StateValue*> rest(in_b.begin(), in_b.end());
    for (const auto& [key, child] : in_a) {
      const auto other = rest.find(key);
      if (other == rest.end()) {
        only_in_a_.push_back(describe_at(join(path, key), *child));
      } else {
        compare(join(path, key), *child, *other->second);
        rest.erase(other);
      }
    }
    for (const auto& [key, child] : rest)
      only_in_b_.push_back(describe_at(join(path, key), *child));
  }

  std::optional<double> tolerance_;
  Json only_in_a_ = Json::array();
  Json only_in_b_ = Json::array();
  Json types_ = Json::array();
  Json values_ = Json::array();
  Json tensors_ = Json::array();
};

void print_heading(std::string_view text, const Json& entries) {
  if (!entries.empty()) fmt::print("{}\n", text);
}

void print_both(const Json& path, const std::string& a, const std::string& b) {
  print_wrapped("  ", name_text(path));
  print_wrapped("    A  ", a);
  print_wrapped("    B  ", b);
}

void print_tensor(const Json& entry) {
  const std::string dtype = entry.at("dtype");
  std::string counts = fmt::format("{} of {} differ", number_text(entry.at("differing")),
                                   count_text(entry.at("numbers"), "number"));
  if (entry.at("not_finite") != 0) {
    counts += fmt::format(", {} of them not finite", number_text(entry.at("not_finite")));
  }
  print_wrapped("  ", name_text(entry.at("path")));
  print_wrapped("    ", counts);
  for (const auto& [key, label] : {std::pair{"first", "first"},
                                   {"largest_absolute", "absolute"},
                                   {"largest_relative", "relative"}}) {
    const Json& where = entry.at(key);
    if (where.is_null()) continue;
    std::string difference;
    if (where.contains("difference")) {
      const Json& value = where.at("difference");
      difference = value.is_number_float() ? fmt::format("{:.6g} ", value.get<double>())
                                           : number_text(value) + " ";
    }
    print_wrapped(
        fmt::format("    {:<8}  ", label),
        fmt::format("{}at {}: A {}, B {}", difference, shape_text(where.at("index")),
                    number_text(where.at("a"), dtype), number_text(where.at("b"), dtype)));
  }
}

void print(const Json& document) {
  if (document.at("equal").get<bool>()) {
    const Json& tolerance = document.at("tolerance");
    fmt::print("equal {}\n",
               tolerance.is_null() ? "to the bit" : "to a tolerance of " + number_text(tolerance));
    return;
  }
  print_wrapped("A  ", name_text(document.at("a")));
  print_wrapped("B  ", name_text(document.at("b")));
  for (const auto& [key, heading] :
       {std::pair{"only_in_a", "only in A"}, {"only_in_b", "only in B"}}) {
    print_heading(heading, document.at(key));
    for (const Json& entry : document.at(key)) {
      print_wrapped("  ", name_text(entry.at("path")));
      print_wrapped("    ", entry_text(entry));
    }
  }
  print_heading("of another kind, dtype or shape", document.at("types"));
  for (const Json& entry : document.at("types")) {
    print_both(entry.at("path"), entry_text(entry.at("a")), entry_text(entry.at("b")));
  }
  print_heading("of another value", document.at("values"));
  for (const Json& entry : document.at("values")) {
    const auto text = [&](const char* side) {
      return entry_text({{"kind", entry.at("kind")}, {"value", entry.at(side)}});
    };
    print_both(entry.at("path"), text("a"), text("b"));
  }
  print_heading("with other numbers: the first, the largest absolute and relative difference",
                document.at("tensors"));
  for (const Json& entry : document.at("tensors")) print_tensor(entry);
}

}  // namespace

bool diff(const DiffOptions& options) {
  const std::optional<double> tolerance = options.tolerance;
  if (tolerance && !(std::isfinite(*tolerance) && *tolerance >= 0)) {
    throw OptionError(fmt::format("expected a tolerance >= 0, found {}", *tolerance));
  }
  const StateDict a = checkpoint::read_file(options.a), b = checkpoint::read_file(options.b);
  Difference difference(tolerance);
  difference.compare(Json::array(), a, b);
  Json document{{"schema", "lockstep.diff"},
                {"version", 1},
                {"a", options.a.string()},
                {"b", options.b.string()},
                {"tolerance", tolerance ? Json(*tolerance) : Json(nullptr)}};
  document.update(difference.json());
  if (options.json) {
    fmt::print("{}\n", to_text(document));
  } else {
    print(document);
  }
  return document.at("equal").get<bool>();
}

}  // namespace lockstep::tools
