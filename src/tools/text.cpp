#include "tools/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>

namespace lockstep::tools {
namespace {

std::string quoted(const Json& text) {
  return text.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace

std::string name_text(const Json& name) {
  if (name.is_string()) {
    const std::string text = quoted(name);
    return text.substr(1, text.size() - 2);
  }
  if (!name.is_array()) return name.dump();
  std::string path;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (i > 0) path += '/';
    path += name_text(name[i]);
  }
  return path;
}

std::string entry_text(const Json& entry) {
  const std::string& kind = entry.at("kind").get_ref<const std::string&>();
  if (kind == "tensor") {
    return fmt::format("{} {}", entry.at("dtype").get_ref<const std::string&>(),
                       shape_text(entry.at("shape")));
  }
  if (entry.contains("size")) {
    return fmt::format("{} of {}", kind, entry.at("size").get<std::uint64_t>());
  }
  // Doubles that JSON has no number for are no strings.
  return kind == "double" ? number_text(entry.at("value")) : quoted(entry.at("value"));
}

std::string number_text(const Json& value, std::string_view dtype) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number_float()) return value.dump();
  const double real = value.get<double>();
  return dtype == "f32" ? fmt::format("{}", static_cast<float>(real)) : fmt::format("{}", real);
}

std::string shape_text(const Json& shape) {
  std::string text;
  for (const Json& extent : shape) {
    if (!text.empty()) text += ", ";
    text += extent.dump();
  }
  return fmt::format("({})", text);
}

std::string bytes_text(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array<std::string_view, 6> units{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double number = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (number >= 999.5) {
    number /= 1024;
    ++unit;
  }
  const int decimals = number < 9.995 ? 2 : number < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f} {}", number, decimals, units[unit]);
}

std::string count_text(std::uint64_t count, std::string_view what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

void print_wrapped(std::string_view head, std::string_view text) {
  const std::size_t room = columns - head.size();
  std::string indent(head);
  do {
    std::size_t size = std::min(text.size(), room);
    std::size_t next = size;
    if (size < text.size()) {
      const std::size_t space = text.rfind(' ', size);
      if (space != std::string_view::npos && space > 0) {
        size = space;
        next = space + 1;
      }
    }
    fmt::print("{}{}\n", indent, text.substr(0, size));
    indent.assign(head.size(), ' ');
    text.remove_prefix(next);
  } while (!text.empty());
}

}  // namespace lockstep::tools
