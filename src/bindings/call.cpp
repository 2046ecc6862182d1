#include "bindings/call.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <exception>

#include "bindings/last_error.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::bindings {
namespace {

lockstep_status status_of(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::shape:
      return LOCKSTEP_ERROR_SHAPE;
    case ErrorKind::dtype:
      return LOCKSTEP_ERROR_DTYPE;
    case ErrorKind::name:
      return LOCKSTEP_ERROR_NAME;
    case ErrorKind::option:
      return LOCKSTEP_ERROR_OPTION;
    case ErrorKind::state:
      return LOCKSTEP_ERROR_STATE;
    case ErrorKind::data:
      return LOCKSTEP_ERROR_DATA;
    case ErrorKind::checkpoint:
      return LOCKSTEP_ERROR_CHECKPOINT;
    case ErrorKind::mpi:
      return LOCKSTEP_ERROR_MPI;
    case ErrorKind::callback:
      return LOCKSTEP_ERROR_CALLBACK;
    case ErrorKind::handle:
      return LOCKSTEP_ERROR_HANDLE;
    case ErrorKind::deadline:
      return LOCKSTEP_ERROR_DEADLINE;
    case ErrorKind::other:
      break;
  }
  return LOCKSTEP_ERROR_OTHER;
}

}  // namespace

lockstep_status keep_error() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    set_last_error(error.what(), error.collective());
    return status_of(error.kind());
  } catch (const std::exception& error) {
    set_last_error(error.what(), false);
  } catch (...) {
    set_last_error("unknown exception", false);
  }
  return LOCKSTEP_ERROR_OTHER;
}

void refuse_null(const char* what) {
  throw OptionError(fmt::format("argument '{}': expected a pointer, found NULL", what));
}

std::string text_of(const char* text, const char* what) { return check_pointer(text, what); }

StateDict options_of(const lockstep_option* options) {
  StateDict named;
  for (const lockstep_option* option = options; option != nullptr && option->name != nullptr;
       ++option) {
    const StateValue value =
        option->text != nullptr ? StateValue(option->text) : StateValue(option->value);
    if (named.insert(option->name, value)) continue;
    StateValue& before = named[option->name];
    if (!std::holds_alternative<StateList>(before.variant())) before = StateList{before};
    before.as_list().push_back(value);
  }
  return named;
}

OptionReader reader_of(const char* owner, const lockstep_option* options) {
  return {owner, options_of(options)};
}

DType dtype_of_array(const lockstep_array& array, const char* what) {
  // C may have any number there, which C++ must not read as an enumeration.
  int number = 0;
  static_assert(sizeof(number) == sizeof(array.dtype));
  std::memcpy(&number, &array.dtype, sizeof(number));
  switch (number) {
    case LOCKSTEP_F32:
      return DType::f32;
    case LOCKSTEP_F64:
      return DType::f64;
    case LOCKSTEP_I64:
      return DType::i64;
    case LOCKSTEP_U8:
      return DType::u8;
    default:
      break;
  }
  throw OptionError(fmt::format("array '{}': there is no dtype {}", what, number));
}

Shape shape_of(const lockstep_array& array, const char* what) {
  if (array.rank == LOCKSTEP_NOT_CONTIGUOUS) {
    throw ShapeError(
        fmt::format("array '{}': expected contiguous memory, found a section with gaps", what));
  }
  if (array.rank < 0 || array.rank > LOCKSTEP_MAX_RANK) {
    throw ShapeError(fmt::format("array '{}': expected a rank of 0 to {}, found {}", what,
                                 LOCKSTEP_MAX_RANK, array.rank));
  }
  try {
    return Shape(std::span(array.extents, static_cast<std::size_t>(array.rank)));
  } catch (const ShapeError& error) {
    throw ShapeError(fmt::format("array '{}': {}", what, error.what()));
  }
}

namespace {

template <class T>
Tensor borrow(void* data, const Shape& shape) {
  return Tensor::borrow(std::span(static_cast<T*>(data), static_cast<std::size_t>(shape.size())),
                        shape);
}

}  // namespace

Tensor tensor_of(const lockstep_array* array, const char* what) {
  check_pointer(array, what);
  const DType dtype = dtype_of_array(*array, what);
  const Shape shape = shape_of(*array, what);
  if (shape.size() == 0) return Tensor::empty(shape, dtype);
  if (array->data == nullptr) {
    throw OptionError(
        fmt::format("array '{}' of shape {}: its data is NULL", what, to_string(shape)));
  }
  if (reinterpret_cast<std::uintptr_t>(array->data) % item_size(dtype) != 0) {
    throw OptionError(
        fmt::format("array '{}': its data is at no address for {}", what, to_string(dtype)));
  }
  switch (dtype) {
    case DType::f32:
      return borrow<float>(array->data, shape);
    case DType::f64:
      return borrow<double>(array->data, shape);
    case DType::i64:
      return borrow<std::int64_t>(array->data, shape);
    case DType::u8:
      break;
  }
  return borrow<std::uint8_t>(array->data, shape);
}

Tensor input_of(const lockstep_array* array, const char* what) {
  return tensor_of(array, what).read_only();
}

lockstep_array array_of(const Tensor& tensor) {
  lockstep_array array{};
  array.dtype = static_cast<lockstep_dtype>(tensor.dtype());
  array.rank = static_cast<int>(tensor.shape().rank());
  for (std::size_t axis = 0; axis < tensor.shape().rank(); ++axis) {
    array.extents[axis] = tensor.shape()[axis];
  }
  // Whether it may be written to is said where the call is declared.
  array.data = const_cast<void*>(tensor.raw());
  return array;
}

}  // namespace lockstep::bindings
