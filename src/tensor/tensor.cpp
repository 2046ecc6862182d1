#include "lockstep/tensor/tensor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "lockstep/core/error.hpp"
#include "lockstep/tensor/memory_pool.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

static_assert(Tensor::alignment == memory_pool::alignment);

Tensor Tensor::empty(const Shape& shape, DType dtype) {
  constexpr std::size_t largest = std::numeric_limits<std::size_t>::max() / 2;
  if (static_cast<std::size_t>(shape.size()) > largest / item_size(dtype)) {
    throw ShapeError(fmt::format("a tensor of shape {} and dtype {} has too many bytes",
                                 to_string(shape), to_string(dtype)));
  }
  Tensor tensor;
  tensor.shape_ = shape;
  tensor.size_ = shape.size();
  tensor.dtype_ = dtype;
  const std::size_t bytes = tensor.bytes();
  void* memory = memory_pool::allocate(bytes);
  tensor.owner_ = std::shared_ptr<void>(
      memory, [bytes](void* pointer) { memory_pool::release(pointer, bytes); },
      memory_pool::Allocator<std::byte>());
  tensor.data_ = static_cast<std::byte*>(memory);
  return tensor;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype) {
  Tensor tensor = empty(shape, dtype);
  std::memset(tensor.data_, 0, tensor.bytes());
  return tensor;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype) {
  Tensor tensor = empty(shape, dtype);
  tensor.fill(value);
  return tensor;
}

namespace {

void check_count(std::size_t found, const Shape& shape) {
  if (static_cast<std::int64_t>(found) != shape.size()) {
    throw ShapeError(
        fmt::format("shape {} needs {} elements, found {}", to_string(shape), shape.size(), found));
  }
}

}  // namespace

template <class T>
Tensor Tensor::from(std::span<const T> values, const Shape& shape) {
  check_count(values.size(), shape);
  Tensor tensor = empty(shape, dtype_of<T>);
  std::copy(values.begin(), values.end(), tensor.span<T>().begin());
  return tensor;
}

template <class T>
Tensor Tensor::borrow(std::span<T> memory, const Shape& shape) {
  check_count(memory.size(), shape);
  if (memory.data() == nullptr && !memory.empty()) {
    throw ShapeError("cannot borrow memory at a null pointer");
  }
  // An empty vector has no address, and a defined tensor needs one.
  static std::byte nothing{};
  Tensor tensor;
  tensor.data_ = memory.empty() ? &nothing : reinterpret_cast<std::byte*>(memory.data());
  tensor.shape_ = shape;
  tensor.size_ = shape.size();
  tensor.dtype_ = dtype_of<T>;
  return tensor;
}

Tensor Tensor::of(std::shared_ptr<void> owner, void* memory, const Shape& shape, DType dtype) {
  Tensor tensor;
  tensor.owner_ = std::move(owner);
  tensor.data_ = static_cast<std::byte*>(memory);
  tensor.shape_ = shape;
  tensor.size_ = shape.size();
  tensor.dtype_ = dtype;
  return tensor;
}

void Tensor::refuse_to_write() {
  throw StateError(
      "the tensor is read-only, as a gradient is that other ranks read as well: take a clone(), or "
      "Parameter::mutable_grad()");
}

template <class T>
std::span<const T> Tensor::span() const {
  if (!defined()) throw StateError("the tensor is undefined");
  if (dtype_ != dtype_of<T>) {
    throw DTypeError(fmt::format("the tensor has dtype {}, accessed as {}", to_string(dtype_),
                                 to_string(dtype_of<T>)));
  }
  return {reinterpret_cast<const T*>(data_), static_cast<std::size_t>(size_)};
}

template <class T>
std::span<T> Tensor::span() {
  check_writable();
  const std::span<const T> elements = std::as_const(*this).span<T>();
  return {const_cast<T*>(elements.data()), elements.size()};
}

double Tensor::item() const {
  if (size_ != 1) {
    throw ShapeError(
        fmt::format("item() needs a tensor of one element, found shape {}", to_string(shape_)));
  }
  return dispatch_all(dtype_, [&]<class T>() { return static_cast<double>(*data<T>()); });
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor copy = empty(shape_, dtype_);
  std::memcpy(copy.data_, data_, bytes());
  return copy;
}

Tensor Tensor::to(DType dtype) const {
  if (!defined() || dtype == dtype_) return clone();
  Tensor result = empty(shape_, dtype);
  dispatch_all(dtype_, [&]<class From>() {
    dispatch_all(dtype, [&]<class To>() {
      std::transform(data<From>(), data<From>() + size_, result.data<To>(),
                     [](From value) { return static_cast<To>(value); });
    });
  });
  return result;
}

Tensor Tensor::reshape(const Shape& shape) const {
  if (shape.size() != size_) {
    throw ShapeError(
        fmt::format("cannot view shape {} as {}", to_string(shape_), to_string(shape)));
  }
  Tensor view = *this;
  view.shape_ = shape;
  return view;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  if (shape_.rank() == 0 || begin < 0 || begin > end || end > shape_[0]) {
    throw ShapeError(
        fmt::format("rows {} to {} are outside shape {}", begin, end, to_string(shape_)));
  }
  std::vector<std::int64_t> extents(shape_.begin(), shape_.end());
  const std::int64_t row = shape_[0] == 0 ? 0 : size_ / shape_[0];
  extents[0] = end - begin;
  return window(begin * row, Shape(extents));
}

Tensor Tensor::window(std::int64_t offset, const Shape& shape) const {
  if (offset < 0 || shape.size() > size_ - offset) {
    throw ShapeError(fmt::format("a window of {} elements at {} is outside a tensor of {}",
                                 shape.size(), offset, size_));
  }
  Tensor view = *this;
  view.data_ += static_cast<std::size_t>(offset) * item_size(dtype_);
  view.shape_ = shape;
  view.size_ = shape.size();
  return view;
}

void Tensor::copy_from(const Tensor& source) {
  check_writable();
  check_same(*this, source, "copy_from");
  std::memmove(data_, source.data_, bytes());
}

void Tensor::fill(double value) {
  if (!defined()) throw StateError("the tensor is undefined");
  check_writable();
  dispatch_all(dtype_, [&]<class T>() { std::fill_n(data<T>(), size_, static_cast<T>(value)); });
}

void check_same(const Tensor& expected, const Tensor& found, const char* what) {
  if (!expected.defined() || !found.defined()) {
    throw StateError(fmt::format("{}: the tensor is undefined", what));
  }
  if (expected.shape() != found.shape()) {
    throw ShapeError(fmt::format("{}: expected shape {}, found {}", what,
                                 to_string(expected.shape()), to_string(found.shape())));
  }
  if (expected.dtype() != found.dtype()) {
    throw DTypeError(fmt::format("{}: expected dtype {}, found {}", what,
                                 to_string(expected.dtype()), to_string(found.dtype())));
  }
}

bool bit_equal(const Tensor& a, const Tensor& b) {
  return a.defined() == b.defined() && a.shape() == b.shape() && a.dtype() == b.dtype() &&
         (!a.defined() || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

#define LOCKSTEP_INSTANTIATE(T)                                      \
  template Tensor Tensor::from<T>(std::span<const T>, const Shape&); \
  template Tensor Tensor::borrow<T>(std::span<T>, const Shape&);     \
  template std::span<T> Tensor::span<T>();                           \
  template std::span<const T> Tensor::span<T>() const;
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
LOCKSTEP_INSTANTIATE(std::int64_t)
LOCKSTEP_INSTANTIATE(std::uint8_t)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep
