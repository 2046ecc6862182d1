#include "autograd/window_options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "lockstep/core/error.hpp"

namespace lockstep::autograd {
namespace {

using kernels::WindowAxis;
using kernels::Windows;

std::array<std::int64_t, 3> numbers(const Size3d& size) {
  return {size.depth, size.height, size.width};
}

// Of the axes that there are.
std::string to_string(const Size3d& size, int axes) {
  const auto all = numbers(size);
  return fmt::format("{}", fmt::join(std::span(all).last(static_cast<std::size_t>(axes)), " x "));
}

template <class Holds>
void check(const char* what, int axes, const Size3d& size, const char* expected, Holds holds) {
  const auto all = numbers(size);
  if (std::all_of(all.begin(), all.end(), holds)) return;
  throw OptionError(
      fmt::format("{}: expected {}, found {}", what, expected, to_string(size, axes)));
}

}  // namespace

void check_windows(const char* what, const WindowOptions& options) {
  constexpr std::int64_t limit = std::int64_t{1} << 31;  // so that no sum of extents overflows
  const auto positive = [](std::int64_t n) { return n >= 1; };
  const auto small = [](std::int64_t n) { return n < limit; };
  check(what, options.axes, options.kernel, "kernel >= 1", positive);
  check(what, options.axes, options.stride, "stride >= 1", positive);
  check(what, options.axes, options.dilation, "dilation >= 1", positive);
  check(what, options.axes, options.kernel, "kernel < 2^31", small);
  check(what, options.axes, options.dilation, "dilation < 2^31", small);
  check(what, options.axes, options.padding, "padding >= 0", [](std::int64_t n) { return n >= 0; });
  check(what, options.axes, options.padding, "padding < 2^31", small);
}

void check_pooling(const char* what, const WindowOptions& options) {
  check_windows(what, options);
  const auto kernel = numbers(options.kernel), padding = numbers(options.padding);
  for (std::size_t axis = 0; axis < kernel.size(); ++axis) {
    if (padding[axis] <= kernel[axis] / 2) continue;
    throw OptionError(fmt::format("{}: expected padding <= kernel / 2, found {}", what,
                                  to_string(options.padding, options.axes)));
  }
}

void check_output_padding(const char* what, const WindowOptions& options, const Size3d& padding) {
  const auto stride = numbers(options.stride), dilation = numbers(options.dilation),
             found = numbers(padding);
  for (std::size_t axis = 3 - static_cast<std::size_t>(options.axes); axis < found.size(); ++axis) {
    if (found[axis] >= 0 && found[axis] < std::max(stride[axis], dilation[axis])) continue;
    throw OptionError(
        fmt::format("{}: expected 0 <= output_padding < max(stride, dilation), found {}", what,
                    to_string(padding, options.axes)));
  }
}

void check_groups(const char* what, std::int64_t in, std::int64_t out, std::int64_t groups) {
  if (groups >= 1 && in % groups == 0 && out % groups == 0) return;
  throw OptionError(fmt::format("{}: expected groups that divide {} and {} channels, found {}",
                                what, in, out, groups));
}

std::string axes_text(int axes, const std::string& first) {
  constexpr std::array names{", length", ", height, width", ", depth, height, width"};
  return fmt::format("({}{})", first, names[static_cast<std::size_t>(axes - 1)]);
}

Windows windows_in(const char* what, const Shape& x, const WindowOptions& options) {
  const auto axes = static_cast<std::size_t>(options.axes);
  if (x.rank() != axes + 2) {
    throw ShapeError(fmt::format("{}: expected an input of shape {}, found {}", what,
                                 axes_text(options.axes, "n, channels"), to_string(x)));
  }
  const auto kernel = numbers(options.kernel), stride = numbers(options.stride),
             padding = numbers(options.padding), dilation = numbers(options.dilation);
  std::array<WindowAxis, 3> all{};
  std::array<std::int64_t, 3> least{};
  bool fits = true;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t extent = axis + axes < 3 ? 1 : x[axis + axes - 1];
    all[axis] = {extent, kernel[axis], stride[axis], padding[axis], dilation[axis]};
    least[axis] = std::max<std::int64_t>(all[axis].reach() - 2 * padding[axis], 1);
    fits = fits && extent >= least[axis];
  }
  if (!fits) {
    throw ShapeError(fmt::format(
        "{}: a kernel of {} with padding {} expects images of at least {}, found shape {}", what,
        to_string(options.kernel, options.axes), to_string(options.padding, options.axes),
        to_string({least[0], least[1], least[2]}, options.axes), lockstep::to_string(x)));
  }
  return {all[0], all[1], all[2]};
}

Size3d counts(const Windows& windows) {
  return {windows.deep.count(), windows.vertical.count(), windows.horizontal.count()};
}

Size3d transposed_extents(const WindowOptions& options, const Shape& x, const Size3d& more) {
  const auto axes = static_cast<std::size_t>(options.axes);
  const auto kernel = numbers(options.kernel), stride = numbers(options.stride),
             padding = numbers(options.padding), dilation = numbers(options.dilation);
  std::array<std::int64_t, 3> extents = numbers(more);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const std::int64_t count = axis + axes < 3 ? 1 : x[axis + axes - 1];
    extents[axis] +=
        (count - 1) * stride[axis] - 2 * padding[axis] + dilation[axis] * (kernel[axis] - 1) + 1;
  }
  return {extents[0], extents[1], extents[2]};
}

Shape shape_of(std::int64_t n, std::int64_t channels, int axes, const Size3d& extents) {
  std::array<std::int64_t, 5> all{n, channels};
  const auto sizes = numbers(extents);
  std::copy(sizes.end() - axes, sizes.end(), all.begin() + 2);
  return Shape(std::span(std::as_const(all)).first(static_cast<std::size_t>(axes) + 2));
}

}  // namespace lockstep::autograd
