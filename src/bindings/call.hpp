#pragma once

#include <string>
#include <utility>

#include "bindings/handles.hpp"
#include "lockstep/bindings/base.h"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/state/state_dict.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "state/option_reader.hpp"

namespace lockstep::bindings {

/// Keeps the exception that is being handled as this thread's last error, and gives its status.
lockstep_status keep_error() noexcept;

/// Runs the body of a call: what it throws becomes a status.
template <class Body>
lockstep_status call(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return LOCKSTEP_OK;
  } catch (...) {
    return keep_error();
  }
}

[[noreturn]] void refuse_null(const char* what);

/// Throws an OptionError where a pointer that a call needs is NULL.
template <class T>
T* check_pointer(T* pointer, const char* what) {
  if (pointer == nullptr) refuse_null(what);
  return pointer;
}

/// A text that a call needs.
std::string text_of(const char* text, const char* what);

/// Options by name, lists where one is given several times. OptionError for one without a value.
StateDict options_of(const lockstep_option* options);
OptionReader reader_of(const char* owner, const lockstep_option* options);

/// Makes an object and gives its handle to the caller.
template <class T, class Handle, class... Arguments>
void create(Handle* result, Arguments&&... arguments) {
  check_pointer(result, "result");
  *result =
      static_cast<Handle>(add_handle(std::make_shared<T>(std::forward<Arguments>(arguments)...)));
}

/// The caller's memory as a tensor; `what` is for errors. OptionError for a bad dtype, rank or
/// pointer; ShapeError for bad extents.
Tensor tensor_of(const lockstep_array* array, const char* what);
/// The same, through which nothing is written.
Tensor input_of(const lockstep_array* array, const char* what);
Shape shape_of(const lockstep_array& array, const char* what);
DType dtype_of_array(const lockstep_array& array, const char* what);
/// What a call returns of a tensor.
lockstep_array array_of(const Tensor& tensor);

}  // namespace lockstep::bindings
