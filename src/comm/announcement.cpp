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

}  // namespace

std::string describe(const Announcement& announcement) {
  const std::string call =
      fmt::format("rank {} makes call {}", announcement.rank, announcement.sequence);
  if (announcement.count > 0 || announcement.hash == 0) {
    return fmt::format("{}: {} of {} {}", call, to_string(announcement.op), announcement.count,
                       to_string(announcement.element));
  }
  return fmt::format("{}: bucket {} of {} bytes (layout {:016x})", call, announcement.number,
                     announcement.bytes, announcement.hash);
}

std::string describe_difference(const Announcement& a, const Announcement& b) {
  return fmt::format("the ranks do not reduce the same: {}, but {}", describe(a), describe(b));
}

}  // namespace lockstep::comm
