#include "comm/announcement.hpp"

#include <fmt/format.h>

namespace lockstep::comm {
namespace {

std::string_view to_string(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::max:
      return "maximum";
    case ReduceOp::min:
      return "minimum";
    case ReduceOp::mean:
      return "mean";
  }
  return "unknown operation";
}

// A text may have another length on each rank.
std::string describe_values(const Announcement& a) {
  return a.count == 0 ? "a text" : fmt::format("{} {}", a.count, to_string(a.element));
}

std::string describe_kind(const Announcement& a) {
  switch (a.call) {
    case Call::reduction:
      if (a.count > 0 || a.hash == 0) {
        return fmt::format("{} of {} {}", to_string(a.op), a.count, to_string(a.element));
      }
      return fmt::format("bucket {} of {} bytes (layout {:016x})", a.number, a.bytes, a.hash);
    case Call::broadcast:
      return fmt::format("broadcast of {} from rank {}", describe_values(a), a.number);
    case Call::gather:
      return fmt::format("gather of {} to rank {}", describe_values(a), a.number);
    case Call::barrier:
      return "barrier";
    case Call::agreement:
      return "agreement on whether a rank has failed";
    case Call::duplicate:
      return "duplicate of the communicator";
    case Call::save:
      return "save of a checkpoint";
    case Call::load:
      return "load of a checkpoint";
    case Call::gradients:
      return fmt::format("reduction of the gradients of reducer {}", a.number);
  }
  return "unknown call";
}

}  // namespace

std::string describe_call(const Announcement& announcement) {
  return fmt::format("call {}: {}", announcement.sequence, describe_kind(announcement));
}

std::string describe(const Announcement& announcement) {
  return fmt::format("rank {} makes {}", announcement.rank, describe_call(announcement));
}

std::string describe_difference(const Announcement& a, const Announcement& b) {
  return fmt::format("the ranks do not make the same call: {}, but {}", describe(a), describe(b));
}

}  // namespace lockstep::comm
