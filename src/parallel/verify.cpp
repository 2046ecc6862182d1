#include "parallel/verify.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "lockstep/core/error.hpp"

namespace lockstep {
namespace {

// One line an item; a name comes last, since it may contain anything but a line's end.
std::string to_line(const TensorSignature& signature) {
  return fmt::format("{} {} {}", to_string(signature.dtype), to_string(signature.shape),
                     signature.name);
}

std::string_view take_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

struct Line {
  std::string_view dtype, shape, name;

  explicit Line(std::string_view line) {
    const std::size_t shape_begin = line.find(' ') + 1;
    const std::size_t shape_end = line.find(')') + 1;
    dtype = line.substr(0, shape_begin - 1);
    shape = line.substr(shape_begin, shape_end - shape_begin);
    name = line.substr(shape_end + 1);
  }
};

[[noreturn]] void throw_difference(const char* what, std::size_t index, std::string_view root_line,
                                   std::string_view own_line, int rank) {
  const auto describe = [](std::string_view line) {
    if (line.empty()) return std::string("missing");
    const Line parts(line);
    return fmt::format("'{}' {} {}", parts.name, parts.dtype, parts.shape);
  };
  const std::string message =
      fmt::format("the replicas differ: {} {} is {} on rank 0 and {} on rank {}", what, index,
                  describe(root_line), describe(own_line), rank);
  if (root_line.empty() || own_line.empty() || Line(root_line).name != Line(own_line).name) {
    throw NameError(message);
  }
  if (Line(root_line).shape != Line(own_line).shape) throw ShapeError(message);
  throw DTypeError(message);
}

}  // namespace

std::uint64_t verify_signatures(const Communicator& communicator, const char* what,
                                const std::vector<TensorSignature>& signatures) {
  std::string own;
  for (const TensorSignature& signature : signatures) own += to_line(signature) + '\n';
  std::string root = own;
  communicator.broadcast(root);
  communicator.agree([&] {
    std::string_view root_lines = root, own_lines = own;
    for (std::size_t i = 0; !root_lines.empty() || !own_lines.empty(); ++i) {
      const std::string_view root_line = take_line(root_lines), own_line = take_line(own_lines);
      if (root_line != own_line) {
        throw_difference(what, i, root_line, own_line, communicator.rank());
      }
    }
  });
  return XXH3_64bits(own.data(), own.size());
}

}  // namespace lockstep
