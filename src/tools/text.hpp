#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tools/state_tree.hpp"

// What the commands print for people: ASCII, at most 80 columns, whatever is in a file.
namespace lockstep::tools {

inline constexpr std::size_t columns = 80;

/// A name or path with what is not printable ASCII escaped as in JSON; '/' between keys.
std::string name_text(const Json& name);

/// A scalar, or a tensor as "f32 (3, 4)", a dict or list as "dict of 3", from describe().
std::string entry_text(const Json& entry);
/// A number with as many digits as it takes to tell it from its neighbours of a dtype.
std::string number_text(const Json& value, std::string_view dtype = "f64");
/// "(3, 4)", of a shape or an index.
std::string shape_text(const Json& shape);
/// "7 B", "1.50 KiB", "20.1 MiB"
std::string bytes_text(std::uint64_t bytes);
/// "1 tensor", "2 tensors"
std::string count_text(std::uint64_t count, std::string_view what);

/// Prints `head` and, beginning on the same line, `text`, which is broken where it is too long and
/// goes on below its own beginning.
void print_wrapped(std::string_view head, std::string_view text);

}  // namespace lockstep::tools
