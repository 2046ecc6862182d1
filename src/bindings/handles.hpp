#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "lockstep/core/error.hpp"
#include "lockstep/state/stateful.hpp"

namespace lockstep::bindings {

/// What a handle of the C interface stands for.
class Object {
 public:
  virtual ~Object() = default;
  /// "communicator"
  virtual std::string_view kind() const noexcept = 0;
  /// What a checkpoint has of it; nullptr for an object without state.
  virtual Stateful* state() noexcept { return nullptr; }
};

/// A new handle: a number in the guise of a pointer, which no other one ever has. So any that was
/// freed is known as such, and none is ever followed.
void* add_handle(std::shared_ptr<Object> object);
/// HandleError where there is none; `expected` is for its message.
std::shared_ptr<Object> find_handle(const void* handle, std::string_view expected);
void free_handle(void* handle);

/// The object of type T behind a handle; HandleError where it is none.
template <class T>
std::shared_ptr<T> get(const void* handle) {
  const std::shared_ptr<Object> object = find_handle(handle, T::name);
  if (auto found = std::dynamic_pointer_cast<T>(object)) return found;
  throw HandleError("expected a handle of a " + std::string(T::name) + ", found one of a " +
                    std::string(object->kind()));
}

/// An Object whose kind is its class's `name`.
template <class Derived>
class ObjectOf : public Object {
 public:
  std::string_view kind() const noexcept override { return Derived::name; }
};

}  // namespace lockstep::bindings
