#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#pragma GCC visibility push(default)

namespace lockstep {

/// The kinds of mistake that lockstep tells apart. Each has an exception type of its own; the
/// number travels between ranks when they agree on an error.
enum class ErrorKind : std::uint8_t {
  other,       ///< anything that is not a lockstep::Error, such as std::bad_alloc
  shape,       ///< ShapeError
  dtype,       ///< DTypeError
  name,        ///< NameError
  option,      ///< OptionError
  state,       ///< StateError
  data,        ///< DataError
  checkpoint,  ///< CheckpointError
  mpi,         ///< MpiError
  callback,    ///< CallbackError
  handle,      ///< HandleError
  deadline,    ///< DeadlineError
};

/// Base of all exceptions that lockstep throws. The message says what was expected, what was found,
/// and where.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ErrorKind kind = ErrorKind::other)
      : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const noexcept { return kind_; }

  /// True when every rank of the communicator throws this same message, so that all of them can end
  /// in order and one of them can report it.
  bool collective() const noexcept { return collective_; }
  void set_collective(bool collective) noexcept { collective_ = collective; }

 private:
  ErrorKind kind_;
  bool collective_ = false;
};

/// Two shapes do not fit each other, or a shape is not valid.
class ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& message) : Error(message, ErrorKind::shape) {}
};

/// A tensor has another element type than the operation takes.
class DTypeError : public Error {
 public:
  explicit DTypeError(const std::string& message) : Error(message, ErrorKind::dtype) {}
};

/// A name is unknown, missing or used twice.
class NameError : public Error {
 public:
  explicit NameError(const std::string& message) : Error(message, ErrorKind::name) {}
};

/// A hyper-parameter or an option is outside its range.
class OptionError : public Error {
 public:
  explicit OptionError(const std::string& message) : Error(message, ErrorKind::option) {}
};

/// A call came in a state that does not allow it, or a state dict does not fit its target.
class StateError : public Error {
 public:
  explicit StateError(const std::string& message) : Error(message, ErrorKind::state) {}
};

/// A data file or a dataset is missing, damaged or not what was asked for.
class DataError : public Error {
 public:
  explicit DataError(const std::string& message) : Error(message, ErrorKind::data) {}
};

/// A checkpoint file is missing, damaged, or belongs to something else.
class CheckpointError : public Error {
 public:
  explicit CheckpointError(const std::string& message) : Error(message, ErrorKind::checkpoint) {}
};

/// An MPI call returned an error code.
class MpiError : public Error {
 public:
  explicit MpiError(const std::string& message) : Error(message, ErrorKind::mpi) {}
};

/// A function that a C or Fortran program has given says that it failed.
class CallbackError : public Error {
 public:
  explicit CallbackError(const std::string& message) : Error(message, ErrorKind::callback) {}
};

/// A handle that a C or Fortran program has given is none, or of something else.
class HandleError : public Error {
 public:
  explicit HandleError(const std::string& message) : Error(message, ErrorKind::handle) {}
};

/// Other ranks did not come to a collective call, or not go on with it, as long as this one waits for them.
class DeadlineError : public Error {
 public:
  explicit DeadlineError(const std::string& message) : Error(message, ErrorKind::deadline) {}
};

/// An exception reduced to what can be sent to another rank.
struct ErrorReport {
  ErrorKind kind = ErrorKind::other;
  std::string message;
};

/// Describes the exception that is being handled. Call it inside a catch block.
ErrorReport describe_current_exception();

/// Throws the exception type that belongs to the report's kind, marked collective().
[[noreturn]] void throw_collective(const ErrorReport& report);

}  // namespace lockstep

#pragma GCC visibility pop
