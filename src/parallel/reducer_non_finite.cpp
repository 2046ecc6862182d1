#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "core/squares.hpp"
#include "parallel/reducer_engine.hpp"
#include "tensor/dispatch.hpp"

namespace lockstep {

double GradientReducer::Engine::measured_squares(std::size_t index) const {
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

// All ranks see the same sums, and so come to this together.
void GradientReducer::Engine::find_non_finite() {
  non_finite_rank_.reset();
  if (!measures_ || ring_) return;
  const auto is_non_finite = [this](std::size_t i) {
    return agreed_[i].reached != 0 && !std::isfinite(measured_squares(i));
  };
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!is_non_finite(i)) continue;
    const std::int64_t none = communicator_.size();
    std::int64_t rank = has_non_finite(i) ? communicator_.rank() : none;
    rank = callers_.all_reduce(rank, ReduceOp::min);
    if (rank != none) non_finite_rank_ = static_cast<int>(rank);
    return;
  }
}

}  // namespace lockstep
