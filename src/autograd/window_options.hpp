#pragma once

#include <cstdint>
#include <string>

#include "lockstep/autograd/pooling.hpp"
#include "tensor/windows.hpp"

namespace lockstep::autograd {

/// Windows in lines (1 axis), images (2) or what is deep (3), as those of what is deep.
struct WindowOptions {
  int axes;
  Size3d kernel, stride, padding, dilation;
};

inline Size3d spread(std::int64_t size, std::int64_t otherwise) {
  return {otherwise, otherwise, size};
}
inline Size3d spread(Size2d size, std::int64_t otherwise) {
  return {otherwise, size.height, size.width};
}
inline Size3d spread(Size3d size, std::int64_t /*otherwise*/) { return size; }

template <class Size>
constexpr int axes_of = sizeof(Size) / sizeof(std::int64_t);

/// Those of a kernel of 1, which the weight has yet to say.
template <class Size, template <class> class Options>
WindowOptions window_options(const Options<Size>& options) {
  return {axes_of<Size>, 1, spread(options.stride, 1), spread(options.padding, 0),
          spread(options.dilation, 1)};
}
template <class Size, template <class> class Options>
WindowOptions pooling_options(Size kernel, const Options<Size>& options) {
  return {axes_of<Size>, spread(kernel, 1), spread(options.stride.value_or(kernel), 1),
          spread(options.padding, 0), 1};
}

/// Throw OptionError, naming `what`, where options are outside the range that conv2d and max_pool2d document.
void check_windows(const char* what, const WindowOptions& options);
void check_pooling(const char* what, const WindowOptions& options);
void check_output_padding(const char* what, const WindowOptions& options, const Size3d& padding);
void check_groups(const char* what, std::int64_t in, std::int64_t out, std::int64_t groups);

/// The windows in x of (n, channels, …); ShapeError where that has other axes, or is smaller than a kernel.
kernels::Windows windows_in(const char* what, const Shape& x, const WindowOptions& options);

/// (n, channels, …), with as many windows, or pixels, along the axes as there are.
Shape shape_of(std::int64_t n, std::int64_t channels, int axes, const Size3d& extents);
Size3d counts(const kernels::Windows& windows);
/// Those of the images that have as many windows as x, of (n, channels, …), has numbers, and `more` pixels.
Size3d transposed_extents(const WindowOptions& options, const Shape& x, const Size3d& more);

/// "(n, channels, height, width)", with what stands for the first two.
std::string axes_text(int axes, const std::string& first);

}  // namespace lockstep::autograd
