#include "lockstep/core/error.hpp"

#include <new>

namespace lockstep {

ErrorReport describe_current_exception() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorKind::other, "out of memory"};
  } catch (const std::exception& error) {
    return {ErrorKind::other, error.what()};
  } catch (...) {
    return {ErrorKind::other, "an exception that is not a std::exception"};
  }
}

namespace {

template <class E>
[[noreturn]] void throw_as(const std::string& message) {
  E error(message);
  error.set_collective(true);
  throw error;
}

}  // namespace

void throw_collective(const ErrorReport& report) {
  switch (report.kind) {
    case ErrorKind::shape:
      throw_as<ShapeError>(report.message);
    case ErrorKind::dtype:
      throw_as<DTypeError>(report.message);
    case ErrorKind::name:
      throw_as<NameError>(report.message);
    case ErrorKind::option:
      throw_as<OptionError>(report.message);
    case ErrorKind::state:
      throw_as<StateError>(report.message);
    case ErrorKind::data:
      throw_as<DataError>(report.message);
    case ErrorKind::checkpoint:
      throw_as<CheckpointError>(report.message);
    case ErrorKind::mpi:
      throw_as<MpiError>(report.message);
    case ErrorKind::callback:
      throw_as<CallbackError>(report.message);
    case ErrorKind::handle:
      throw_as<HandleError>(report.message);
    case ErrorKind::deadline:
      throw_as<DeadlineError>(report.message);
    case ErrorKind::other:
      break;
  }
  throw_as<Error>(report.message);
}

}  // namespace lockstep
