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
  const std::size_t size = item_size(announcement.element);
  return fmt::format("rank {} makes call {}, part {}: {} of {} {} (layout {:016x})",
                     announcement.rank, announcement.sequence, announcement.number,
                     to_string(announcement.op), announcement.bytes / size,
                     to_string(announcement.element), announcement.hash);
}

std::string describe_difference(const Announcement& a, const Announcement& b) {
  return fmt::format("the ranks do not reduce the same: {}, but {}", describe(a), describe(b));
}

}  // namespace lockstep::comm
