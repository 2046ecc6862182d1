#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "parallel/reducer_engine.hpp"

namespace lockstep {
namespace {

// Wanted on some ranks and not on others.
bool conflicts(const ItemNote& note) { return note.frozen != 0 && note.trainable != 0; }

bool reached_on_some(const ItemNote& note) { return note.reached != 0 && note.missed != 0; }

}  // namespace

bool GradientReducer::Engine::has_weight() const noexcept {
  const auto single = static_cast<float>(weight_);
  return weight_ == 0 || (weight_ > 0 && std::isnormal(single));
}

// Whether some rank has noted that. All buckets tell the same, except that it is the last that is
// abandoned for sure.
bool GradientReducer::Engine::noted(Note::Index note) const {
  return reduction_->result()[buckets_.back().notes + note] != std::byte{0};
}

// Throws on all ranks where one of them has spoilt the round. What was contributed stays for the
// next one where only the weights were wrong.
void GradientReducer::Engine::check_round(const std::exception_ptr& failure) {
  const bool parted = noted(Note::hook_failed) && noted(Note::hook_passed);
  const bool abandoned = noted(Note::abandoned) || parted, invalid = noted(Note::invalid_weight);
  const bool weightless =
      !noted(Note::positive_weight) && options_.reduction == GradientReduction::mean &&
      std::any_of(agreed_.begin(), agreed_.end(), [](const ItemNote& n) { return n.reached != 0; });
  const bool strict = options_.missing == MissingGradients::error;
  const bool differ = std::any_of(agreed_.begin(), agreed_.end(), [&](const ItemNote& note) {
    return conflicts(note) || (strict && note.missed != 0);
  });
  if (!abandoned && !invalid && !weightless && !differ) return;
  try {
    communicator_.agree([&] {
      if (failure != nullptr) std::rethrow_exception(failure);
      if (parted && hook_failure_ != nullptr) std::rethrow_exception(hook_failure_);
      if (abandoned) return;
      if (!has_weight()) {
        throw OptionError(fmt::format(
            "expected a weight that is 0 or a positive normal number of f32, found {}", weight_));
      }
      if (!invalid && !weightless) check_items();
    });
    OptionError error("the weights of all ranks are zero: there is nothing to average");
    error.set_collective(true);
    throw error;
  } catch (...) {
    const bool keeps = (invalid || weightless) && !abandoned && !weighted_ && !ring_;
    if (!keeps) {
      undo_round();
      throw;
    }
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (!states_[i].used) restore(i);
    }
    end_round();
    throw;
  }
}

// Throws what this rank has to do with items on which the ranks do not agree.
void GradientReducer::Engine::check_items() const {
  const auto freezes = [this](std::size_t i) {
    return conflicts(agreed_[i]) && own_note(i).frozen != 0;
  };
  if (const std::string names = names_where(freezes); !names.empty()) {
    throw StateError(fmt::format(
        "requires_grad is off for {} on this rank, and on for others: it must be the same on all",
        names));
  }
  if (options_.missing != MissingGradients::error) return;
  const auto misses = [this](std::size_t i) { return own_note(i).missed != 0; };
  if (const std::string names = names_where(misses); !names.empty()) {
    throw StateError(fmt::format("there is no gradient of {} when the backward is over", names));
  }
}

// The names of the parameters for which a condition holds; empty where there is none.
std::string GradientReducer::Engine::names_where(
    const std::function<bool(std::size_t)>& condition) const {
  constexpr std::size_t most = 8;
  std::vector<std::string> names;
  std::size_t more = 0;
  // In the order in which the caller has listed them.
  for (std::size_t i = items_.size(); i-- > 0;) {
    if (!condition(i)) continue;
    if (names.size() < most) {
      names.push_back(fmt::format("'{}'", items_[i].name));
    } else {
      ++more;
    }
  }
  if (names.empty()) return {};
  return fmt::format("{} {}{}", names.size() + more == 1 ? "parameter" : "parameters",
                     fmt::join(names, ", "), more == 0 ? "" : fmt::format(" and {} more", more));
}

// What the next bucket to be complete has: ", with parameter 'weight'".
std::string GradientReducer::Engine::describe_under_way() const {
  const std::uint64_t next = reduction_->completed() - completed_before_;
  if (next >= buckets_.size()) return {};
  std::vector<bool> has(items_.size());
  for (const std::uint32_t item : buckets_[next].items) has[item] = true;
  const std::string names = names_where([&](std::size_t i) { return has[i]; });
  return names.empty() ? "" : ", with " + names;
}

// Once, since a model may be meant to be like that.
void GradientReducer::Engine::report_missing() {
  if (reported_missing_) return;
  const auto missed = [this](std::size_t i) { return agreed_[i].missed != 0; };
  const std::string names = names_where(missed);
  if (names.empty()) return;
  reported_missing_ = true;
  if (communicator_.rank() != 0) return;
  const auto missed_by_some = [this](std::size_t i) { return reached_on_some(agreed_[i]); };
  const std::string some = names_where(missed_by_some);
  log(LogLevel::warning,
      fmt::format("a backward has reached no gradient of {}{}; this is reported once", names,
                  some.empty()    ? " on any rank"
                  : some == names ? " on some ranks"
                                  : fmt::format(", of which some ranks have reached {}", some)));
}

// What the means of items that some have missed are to be multiplied with, to be those of the
// others alone.
void GradientReducer::Engine::find_scales() {
  scales_.clear();
  if (options_.missing != MissingGradients::leave_out ||
      options_.reduction != GradientReduction::mean) {
    return;
  }
  std::vector<std::size_t> mixed;
  std::vector<double> weights{weight_};
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!reached_on_some(agreed_[i])) continue;
    const State& state = states_[i];
    mixed.push_back(i);
    weights.push_back(in_part_ ? state.reached_weight : state.used ? weight_ : 0);
  }
  if (mixed.empty()) return;
  communicator_.all_reduce(std::span<double>(weights));
  scales_.assign(items_.size(), 1);
  for (std::size_t k = 0; k < mixed.size(); ++k) {
    const double reached = weights[k + 1];
    if (reached > 0) scales_[mixed[k]] = weights[0] / reached;
  }
}

// The next round has another plan where what is frozen has changed.
void GradientReducer::Engine::follow_frozen() {
  bool changed = false;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    changed = changed || states_[i].planned != (agreed_[i].trainable != 0);
  }
  if (!changed) return;
  const std::vector<std::uint32_t> order = planned_order();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    states_[i].planned = agreed_[i].trainable != 0;
    states_[i].ordered = false;
  }
  order_.clear();
  planned_ = false;
  make_plan(order);
}

}  // namespace lockstep
