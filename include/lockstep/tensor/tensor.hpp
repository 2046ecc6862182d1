#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/core/dtype.hpp"
#include "lockstep/tensor/shape.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Dense, contiguous, row-major numbers. A Tensor is a handle: copies share the memory, which lives
/// as long as the last of them (owned) or belongs to the caller (borrowed). A default-constructed
/// Tensor is undefined and has no memory.
///
/// Owned memory starts at a 64-byte boundary, and is readable and writable up to the next one.
class Tensor {
 public:
  static constexpr std::size_t alignment = 64;

  Tensor() = default;

  /// Owned memory with arbitrary contents. ShapeError for more bytes than can be addressed.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32);
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32);
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32);

  /// Owned memory with a copy of `values`. ShapeError where their number is not shape.size().
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape);
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }

  /// The caller's own memory, which must outlive every Tensor that refers to it.
  template <class T>
  static Tensor borrow(std::span<T> memory, const Shape& shape);
  template <class T>
  static Tensor borrow(std::vector<T>& memory) {
    return borrow(std::span<T>(memory), Shape{static_cast<std::int64_t>(memory.size())});
  }

  /// Memory that lives as long as `owner`, at a 64-byte boundary and readable up to the next one.
  static Tensor of(std::shared_ptr<void> owner, void* memory, const Shape& shape, DType dtype);

  bool defined() const noexcept { return data_ != nullptr; }
  bool borrowed() const noexcept { return defined() && owner_ == nullptr; }

  /// A handle to the same memory through which nothing can be written, nor through its copies: what
  /// would give access for that is a StateError.
  Tensor read_only() const {
    Tensor view = *this;
    view.writable_ = false;
    return view;
  }
  DType dtype() const noexcept { return dtype_; }
  const Shape& shape() const noexcept { return shape_; }
  std::int64_t size() const noexcept { return size_; }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(size_) * item_size(dtype_); }
  /// Elements up to the first 64-byte boundary at or after the last one: what the tensor takes in a
  /// layout of several in one memory.
  std::int64_t padded_size() const noexcept {
    const auto step = static_cast<std::int64_t>(alignment / item_size(dtype_));
    return (size_ + step - 1) / step * step;
  }

  void* raw() {
    check_writable();
    return data_;
  }
  const void* raw() const noexcept { return data_; }

  /// The elements; DTypeError where T is not the tensor's type.
  template <class T>
  std::span<T> span();
  template <class T>
  std::span<const T> span() const;
  template <class T>
  T* data() {
    return span<T>().data();
  }
  template <class T>
  const T* data() const {
    return span<T>().data();
  }

  /// The only element of a tensor of size 1, as a double.
  double item() const;

  /// A copy in owned memory.
  Tensor clone() const;
  /// A copy with elements converted to `dtype`.
  Tensor to(DType dtype) const;
  /// The same memory under another shape of the same size.
  Tensor reshape(const Shape& shape) const;
  /// The same memory: rows begin ≤ i < end along the first axis.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  /// The same memory: `shape` elements starting at element `offset` of the flattened tensor.
  Tensor window(std::int64_t offset, const Shape& shape) const;

  /// Copies the elements of a tensor of equal shape and dtype.
  void copy_from(const Tensor& source);
  void fill(double value);

 private:
  void check_writable() const {
    if (!writable_) refuse_to_write();
  }
  [[noreturn]] static void refuse_to_write();

  std::shared_ptr<void> owner_;
  std::byte* data_ = nullptr;
  Shape shape_;
  std::int64_t size_ = 0;
  DType dtype_ = DType::f32;
  bool writable_ = true;
};

/// Throws ShapeError or DTypeError, naming `what`, unless the two agree in shape and dtype.
void check_same(const Tensor& expected, const Tensor& found, const char* what);

/// True where shape, dtype and every bit agree (so NaN equals the same NaN, and -0 differs from 0).
bool bit_equal(const Tensor& a, const Tensor& b);

}  // namespace lockstep

#pragma GCC visibility pop
