#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>

#include "core/squares.hpp"
#include "parallel/reducer_engine.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

double GradientReducer::Engine::sum_measured(std::size_t index) const {
  const GradientRange& range = ranges_[index];
  const auto* sums = reinterpret_cast<const double*>(reduction_->result() + range.squares);
  return std::accumulate(sums, sums + squares_blocks(range.bytes), 0.0);
}

// What this rank has contributed, which stays in its segment until the next round.
bool GradientReducer::Engine::has_non_finite(std::size_t index) const {
  const GradientRange& range = ranges_[index];
  return dispatch_floating(range.dtype, [&]<class T>() {
    for (std::size_t slot = 0; slot <= (parts_.count > 0 ? sums_->work_slot() : 0); ++slot) {
      const auto* numbers = reinterpret_cast<const T*>(reduction_->segment() +
                                                       slot * parts_.slot_bytes + range.offset);
      if (!std::all_of(numbers, numbers + range.numbers, [](T x) { return std::isfinite(x); }))
        return true;
    }
    return false;
  });
}

// Keeps the sums, which clipping asks for. All ranks see the same, and so come to the same end.
void GradientReducer::Engine::find_non_finite() {
  non_finite_rank_.reset();
  if (!measures_) return;
  std::optional<std::size_t> first;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (agreed_[i].reached == 0) continue;
    states_[i].squares = sum_measured(i);
    if (!first && !std::isfinite(states_[i].squares)) first = i;
  }
  if (!first || ring_) return;
  const std::int64_t none = communicator_.size();
  std::int64_t rank = has_non_finite(*first) ? communicator_.rank() : none;
  rank = callers_.all_reduce(rank, ReduceOp::min);
  if (rank != none) non_finite_rank_ = static_cast<int>(rank);
}

}  // namespace lockstep
