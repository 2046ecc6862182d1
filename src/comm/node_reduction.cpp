#include "comm/node_reduction.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "comm/measured.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::comm {
namespace {

// Of which a result is still in the cache when it is measured.
constexpr std::size_t cached_lines = 1024;

}  // namespace

NodeReduction::NodeReduction(const NodeView& view, std::size_t capacity)
    : view_(view), protocol_(view.control, view.place, size(), capacity), running_(capacity) {
  operands_.reserve(view.sources.size());
}

std::uint64_t NodeReduction::start(const Job& job) {
  const std::uint64_t sequence = ++started_;
  Running& slot = running(sequence);
  slot = {.job = job, .lines = job.lines()};
  const Piece& first = job.pieces.front();
  protocol_.announce({.sequence = sequence,
                      .hash = job.hash,
                      .bytes = slot.lines * line_bytes,
                      .count = job.count,
                      .weight = job.weight,
                      .number = job.number,
                      .rank = rank(),
                      .element = job.call == Call::reduction ? first.element : job.element,
                      .op = first.op,
                      .call = job.call});
  return sequence;
}

bool NodeReduction::ready(std::uint64_t sequence) {
  Running& slot = running(sequence);
  if (slot.checked) return true;
  if (!protocol_.all_announced(sequence)) return false;
  const Announcement& first = protocol_.announcement(0, sequence);
  for (int place = 1; place < size(); ++place) {
    const Announcement& other = protocol_.announcement(place, sequence);
    if (!other.agrees_with(first)) fail({ErrorKind::state, describe_difference(first, other)});
  }
  slot.checked = true;
  return true;
}

double NodeReduction::weight(std::uint64_t sequence) const noexcept {
  double sum = 0;
  for (int place = 0; place < size(); ++place) {
    sum += protocol_.announcement(place, sequence).weight;
  }
  return sum;
}

std::span<const Operand> NodeReduction::operands(const Piece& piece, std::uint64_t sequence,
                                                 std::size_t offset) {
  operands_.clear();
  const bool weigh =
      (piece.op == ReduceOp::sum || piece.op == ReduceOp::mean) && !job(sequence).weighted;
  for (const NodeView::Source& source : view_.sources) {
    operands_.push_back(
        {.data = view_.segments + source.offset + offset,
         .weight = weigh ? protocol_.announcement(source.place, sequence).weight : 1});
  }
  return operands_;
}

// For a sink. The notes are known to all before any of them goes on, since they lie in memory that all can read.
void NodeReduction::reduce_share(const Job& job, std::uint64_t sequence) {
  const double divisor = job.average ? weight(sequence) : job.divisor;
  const Piece& notes = job.pieces.back();
  lines_.resize(std::max(cached_lines, notes.bytes / line_bytes));
  const auto combine_at = [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
    combine_and_conclude(piece.element, piece.op, bytes / item_size(piece.element),
                         operands(piece, sequence, offset), view_.order, divisor, lines_.data());
    return std::as_bytes(std::span(lines_)).first(bytes);
  };
  const std::span<const std::byte> noted = combine_at(notes, notes.offset, notes.bytes);
  if (view_.place == 0) std::memcpy(view_.result + notes.offset, noted.data(), noted.size());
  job.sink->begin(noted);
  const LineRange share = job.shares[static_cast<std::size_t>(rank())];
  for (LineRange range{share.begin, share.begin}; range.end < share.end;) {
    range = {range.end, std::min(range.end + cached_lines, share.end)};
    for_lines(job.pieces, range, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
      job.sink->take(offset, combine_at(piece, offset, bytes));
    });
  }
}

// Whether the result is what a rank that is alone has in that place.
bool NodeReduction::is_there(const Job& job) const noexcept {
  const bool alone = view_.result == view_.segments && view_.sources.size() == 1;
  return alone && !job.weighted && (job.average || (job.weight == 1 && job.divisor == 1));
}

void NodeReduction::reduce() {
  for (; worked_ < started_; finish()) {
    const std::uint64_t sequence = worked_ + 1;
    const Job& job = this->job(sequence);
    if (job.sink != nullptr) {
      if (!ready(sequence)) return;
      reduce_share(job, sequence);
      continue;
    }
    const LineRange share = share_of(job.measured, lines(sequence),
                                     static_cast<std::size_t>(view_.place), view_.ranks.size());
    // Who has nothing to do need not wait before it says so.
    if (share.begin == share.end) continue;
    if (!ready(sequence)) return;
    if (is_there(job)) continue;
    const double divisor = job.average ? weight(sequence) : job.divisor;
    LineRange range{share.begin, share.begin};
    while (range.end < share.end) {
      range = {range.end, cut_at(job.measured, range.end + cached_lines, share.end)};
      for_lines(job.pieces, range, [&](const Piece& piece, std::size_t offset, std::size_t bytes) {
        combine_and_conclude(piece.element, piece.op, bytes / item_size(piece.element),
                             operands(piece, sequence, offset), view_.order, divisor,
                             view_.result + offset);
      });
      measure(job.measured, range, view_.result);
    }
  }
}

bool NodeReduction::complete() noexcept {
  while (completed_ < worked_ && protocol_.all_finished(completed_ + 1)) ++completed_;
  return completed_ == started_;
}

void NodeReduction::check_others() {
  const std::optional<ErrorReport> failure = protocol_.failure();
  // Another may have failed in a later reduction, and what is complete here stays so.
  if (complete()) return;
  if (failure) fail(*failure);
  const std::uint64_t next = completed_ + 1;
  const int left = protocol_.who_left_before(next);
  if (left < 0) return;
  fail({ErrorKind::state, fmt::format("rank {} has gone before call {}, which others make",
                                      view_.ranks[static_cast<std::size_t>(left)], next)});
}

void NodeReduction::set_failed(const ErrorReport& report) {
  protocol_.fail(report);
  // The first word counts, which may be shortened there.
  const std::optional<ErrorReport> first = protocol_.failure();
  failure_ = first && !report.message.starts_with(first->message) ? *first : report;
}

void NodeReduction::fail(const ErrorReport& report) {
  set_failed(report);
  raise();
}

void NodeReduction::raise() const {
  // Who is not there throws nothing.
  if (failure_->kind == ErrorKind::deadline) throw DeadlineError(failure_->message);
  throw_collective(*failure_);
}

NodeReduction::Missing NodeReduction::missing() const {
  const std::uint64_t next = completed_ + 1;
  const auto ranks = [&](std::vector<int> places) {
    for (int& place : places) place = view_.ranks[static_cast<std::size_t>(place)];
    return places;
  };
  Missing missing{.announcement = protocol_.announcement(view_.place, next),
                  .absent = ranks(protocol_.not_announced(next)),
                  .at_work = {}};
  if (missing.absent.empty()) missing.at_work = ranks(protocol_.not_finished(next));
  return missing;
}

}  // namespace lockstep::comm
