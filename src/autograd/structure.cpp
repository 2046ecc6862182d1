#include "lockstep/autograd/structure.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "lockstep/core/error.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {

using autograd::GradientSlot;
using autograd::record;
using Slots = std::span<GradientSlot>;

namespace {

using Extents = std::array<std::int64_t, Shape::max_rank>;

Extents extents_of(const Shape& shape) {
  Extents extents{};
  std::copy(shape.begin(), shape.end(), extents.begin());
  return extents;
}

Shape with_extent(const Shape& shape, std::size_t axis, std::int64_t extent) {
  Extents extents = extents_of(shape);
  extents[axis] = extent;
  return Shape(std::span<const std::int64_t>(extents).first(shape.rank()));
}

void check_axis(const char* what, const Shape& shape, std::size_t axis) {
  if (axis < shape.rank()) return;
  throw ShapeError(
      fmt::format("{}: there is no axis {} in shape {}", what, axis, to_string(shape)));
}

// Blocks along an axis: `count` of them, each of `size` numbers, of which a range has `offset` and `part`.
struct Blocks {
  std::int64_t count, size, offset, part;

  Blocks(const Shape& shape, std::size_t axis, std::int64_t begin, std::int64_t extent) : count(1) {
    std::int64_t inner = 1;
    for (std::size_t i = 0; i < axis; ++i) count *= shape[i];
    for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    size = shape[axis] * inner;
    offset = begin * inner;
    part = extent * inner;
  }

  template <class T>
  void get(const T* whole, T* range) const {
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(whole + i * size + offset, part, range + i * part);
    }
  }
  template <class T>
  void put(const T* range, T* whole) const {
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(range + i * part, part, whole + i * size + offset);
    }
  }
  template <class T>
  void get_added(const T* whole, T* range) const {
    for (std::int64_t i = 0; i < count; ++i) {
      kernels::add_scaled(part, T{1}, whole + i * size + offset, range + i * part);
    }
  }
  template <class T>
  void add(const T* range, T* whole) const {
    for (std::int64_t i = 0; i < count; ++i) {
      kernels::add_scaled(part, T{1}, range + i * part, whole + i * size + offset);
    }
  }
};

}  // namespace

Variable reshape(const Variable& x, const Shape& shape) {
  return record(x.value().reshape(shape), {x},
                [](const Tensor& gradient, Slots slots) { slots[0].pass(gradient); });
}

Variable slice(const Variable& x, std::size_t axis, std::int64_t begin, std::int64_t end) {
  const Shape& shape = x.shape();
  check_axis("slice", shape, axis);
  if (begin < 0 || begin > end || end > shape[axis]) {
    throw ShapeError(fmt::format("slice: there is no range [{}, {}) along axis {} of shape {}",
                                 begin, end, axis, to_string(shape)));
  }
  const Blocks blocks(shape, axis, begin, end - begin);
  Tensor result = Tensor::empty(with_extent(shape, axis, end - begin), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() { blocks.get(x.value().data<T>(), result.data<T>()); });
  return record(result, {x}, [blocks](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      if (!accumulate) target.fill(0);
      dispatch_kernel(gradient.dtype(),
                      [&]<class T>() { blocks.add(gradient.data<T>(), target.data<T>()); });
    });
  });
}

Variable concatenate(const std::vector<Variable>& parts, std::size_t axis) {
  if (parts.empty()) throw ShapeError("concatenate: expected at least one part");
  const Shape& first = parts.front().shape();
  check_axis("concatenate", first, axis);
  std::int64_t extent = 0;
  for (const Variable& part : parts) {
    if (part.dtype() != parts.front().dtype()) {
      throw DTypeError(fmt::format("concatenate: expected parts of dtype {}, found {}",
                                   to_string(parts.front().dtype()), to_string(part.dtype())));
    }
    const Shape& shape = part.shape();
    if (shape.rank() != first.rank() || with_extent(shape, axis, first[axis]) != first) {
      throw ShapeError(
          fmt::format("concatenate: expected parts that agree with {} in all axes but {}, found {}",
                      to_string(first), axis, to_string(shape)));
    }
    extent += shape[axis];
  }
  const Shape whole = with_extent(first, axis, extent);
  Tensor result = Tensor::empty(whole, parts.front().dtype());
  std::vector<Blocks> blocks;
  std::int64_t begin = 0;
  for (const Variable& part : parts) {
    blocks.emplace_back(whole, axis, begin, part.shape()[axis]);
    begin += part.shape()[axis];
    dispatch_kernel(part.dtype(), [&]<class T>() {
      blocks.back().put(part.value().data<T>(), result.data<T>());
    });
  }
  return record(result, parts, [blocks](const Tensor& gradient, Slots slots) {
    for (std::size_t i = 0; i < slots.size(); ++i) {
      slots[i].receive([&](Tensor& target, bool accumulate) {
        dispatch_kernel(gradient.dtype(), [&]<class T>() {
          if (!accumulate) return blocks[i].get(gradient.data<T>(), target.data<T>());
          blocks[i].get_added(gradient.data<T>(), target.data<T>());
        });
      });
    }
  });
}

namespace {

// Calls f(element of the result, element of x) for each, where axis i of the result is axis order[i] of x: in rectangles
// of the two axes along which neighbours are neighbours, there and here, so that lines of both stay in the cache.
template <class F>
void for_each_permuted(const Shape& x, const std::vector<std::size_t>& order, F f) {
  if (x.size() == 0) return;
  struct Axis {
    std::int64_t extent = 1, from = 0, to = 0;  // and how far one step goes
  };
  Extents strides{};
  std::int64_t stride = 1;
  for (std::size_t axis = x.rank(); axis-- > 0; stride *= x[axis]) strides[axis] = stride;
  std::vector<Axis> axes;  // of the result, those that stay neighbours as one
  for (const std::size_t axis : order) {
    if (x[axis] == 1) continue;
    if (axes.empty() || axes.back().from != strides[axis] * x[axis]) axes.emplace_back();
    axes.back().extent *= x[axis];
    axes.back().from = strides[axis];
  }
  stride = 1;
  for (auto axis = axes.rbegin(); axis != axes.rend(); stride *= (axis++)->extent) {
    axis->to = stride;
  }
  const auto take = [&axes](std::int64_t Axis::*step) {
    const auto next = std::find_if(axes.begin(), axes.end(),
                                   [step](const Axis& axis) { return axis.*step == 1; });
    if (next == axes.end()) return Axis();
    const Axis taken = *next;
    axes.erase(next);
    return taken;
  };
  const Axis row = take(&Axis::to), column = row.from == 1 ? Axis() : take(&Axis::from);
  // Lines that are a power of two apart share few places in a cache, hence no more of them at a time.
  const std::int64_t lines = column.extent == 1 ? row.extent : 8, numbers = 16;

  std::int64_t planes = 1;
  for (const Axis& axis : axes) planes *= axis.extent;
  Extents index{};
  for (std::int64_t plane = 0, to = 0, from = 0; plane < planes; ++plane) {
    for (std::int64_t j = 0; j < row.extent; j += lines) {
      const std::int64_t j_end = std::min(j + lines, row.extent);
      for (std::int64_t i = 0; i < column.extent; i += numbers) {
        const std::int64_t i_end = std::min(i + numbers, column.extent);
        for (std::int64_t k = i; k < i_end; ++k) {
          for (std::int64_t l = j; l < j_end; ++l) {
            f(to + k * column.to + l, from + k + l * row.from);
          }
        }
      }
    }
    for (std::size_t i = axes.size(); i-- > 0;) {
      to += axes[i].to;
      from += axes[i].from;
      if (++index[i] < axes[i].extent) break;
      to -= axes[i].to * axes[i].extent;
      from -= axes[i].from * axes[i].extent;
      index[i] = 0;
    }
  }
}

}  // namespace

Variable permute(const Variable& x, const std::vector<std::size_t>& order) {
  const Shape shape = x.shape();
  std::vector<std::size_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  bool fits = order.size() == shape.rank();
  for (std::size_t axis = 0; axis < sorted.size(); ++axis) fits = fits && sorted[axis] == axis;
  if (!fits) {
    throw ShapeError(fmt::format("permute: expected each axis of shape {} once, found ({})",
                                 to_string(shape), fmt::join(order, ", ")));
  }
  Extents extents{};
  for (std::size_t axis = 0; axis < order.size(); ++axis) extents[axis] = shape[order[axis]];
  Tensor result =
      Tensor::empty(Shape(std::span<const std::int64_t>(extents).first(order.size())), x.dtype());
  dispatch_kernel(x.dtype(), [&]<class T>() {
    for_each_permuted(shape, order,
                      [to = result.data<T>(), from = x.value().data<T>()](
                          std::int64_t i, std::int64_t j) { to[i] = from[j]; });
  });
  std::vector<std::size_t> inverse(order.size());
  for (std::size_t axis = 0; axis < order.size(); ++axis) inverse[order[axis]] = axis;
  return record(result, {x}, [inverse](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      dispatch_kernel(gradient.dtype(), [&]<class T>() {
        for_each_permuted(gradient.shape(), inverse,
                          [to = target.data<T>(), from = gradient.data<T>(), accumulate](
                              std::int64_t i, std::int64_t j) {
                            to[i] = accumulate ? to[i] + from[j] : from[j];
                          });
      });
    });
  });
}

Variable embedding(const Tensor& indices, const Variable& weight) {
  if (weight.shape().rank() != 2) {
    throw ShapeError(
        fmt::format("embedding: expected a weight of shape (count, features), found {}",
                    to_string(weight.shape())));
  }
  const std::int64_t count = weight.shape()[0], features = weight.shape()[1];
  const std::span<const std::int64_t> rows = indices.span<std::int64_t>();
  for (const std::int64_t row : rows) {
    if (row < 0 || row >= count) {
      throw DataError(fmt::format("embedding: index {} is outside [0, {})", row, count));
    }
  }
  Extents extents = extents_of(indices.shape());
  const std::size_t rank = indices.shape().rank();
  if (rank == Shape::max_rank) {
    throw ShapeError(fmt::format("embedding: expected indices of less than {} axes, found shape {}",
                                 Shape::max_rank, to_string(indices.shape())));
  }
  extents[rank] = features;
  Tensor result =
      Tensor::empty(Shape(std::span<const std::int64_t>(extents).first(rank + 1)), weight.dtype());
  dispatch_kernel(weight.dtype(), [&]<class T>() {
    T* to = result.data<T>();
    for (const std::int64_t row : rows) {
      to = std::copy_n(weight.value().data<T>() + row * features, features, to);
    }
  });
  return record(result, {weight}, [indices, features](const Tensor& gradient, Slots slots) {
    slots[0].receive([&](Tensor& target, bool accumulate) {
      if (!accumulate) target.fill(0);
      dispatch_kernel(gradient.dtype(), [&]<class T>() {
        const T* from = gradient.data<T>();
        for (const std::int64_t row : indices.span<std::int64_t>()) {
          kernels::add_scaled(features, T{1}, from, target.data<T>() + row * features);
          from += features;
        }
      });
    });
  });
}

}  // namespace lockstep
