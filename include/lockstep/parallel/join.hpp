#pragma once

#include <array>
#include <cstdint>
#include <exception>
#include <iterator>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "lockstep/comm/communicator.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// What becomes of ranks that run out of batches before others.
enum class UnevenInputs {
  join,      ///< they go on with empty batches until all have run out
  shortest,  ///< all ranks stop with the first
};

/// This rank's batches, such that all ranks take the same number of steps:
///
///     for (const Batch& batch : JoinedBatches(loader, world)) {
///       optimizer.zero_grad();
///       replica.backward(batch, loss);
///       optimizer.step();
///     }
///
/// Each sample counts once, with DataParallel::backward(batch, loss), to which a rank that has run
/// out gives a Batch(), whose size() is 0. Each step is a collective call on the communicator. What a
/// rank throws on reading its next batch, all ranks throw, marked collective().
template <class Batches>
class JoinedBatches {
 public:
  using Batch = std::remove_cvref_t<decltype(*std::begin(std::declval<Batches&>()))>;

  /// Both must outlive this.
  JoinedBatches(Batches& batches, const Communicator& communicator,
                UnevenInputs uneven = UnevenInputs::join)
      : batches_(&batches), communicator_(&communicator), uneven_(uneven) {}

  class Iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;

    const Batch& operator*() const noexcept { return batch_; }
    Iterator& operator++() {
      read();
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const noexcept { return over_; }

   private:
    friend JoinedBatches;
    using Inner = decltype(std::begin(std::declval<Batches&>()));

    explicit Iterator(const JoinedBatches& joined) : joined_(&joined) { read(); }

    void read() {
      const Communicator& communicator = *joined_->communicator_;
      Batches& batches = *joined_->batches_;
      std::exception_ptr failure;
      batch_ = Batch();
      const bool had_next = std::exchange(has_next_, false);
      try {
        // Any of these may read a batch.
        if (!next_) {
          next_.emplace(std::begin(batches));
        } else if (had_next) {
          ++*next_;
        }
        has_next_ = *next_ != std::end(batches);
        if (has_next_) batch_ = **next_;
      } catch (...) {
        failure = std::current_exception();
      }
      std::array<std::int64_t, 2> ranks{has_next_, failure != nullptr};  // of which that is so
      communicator.all_reduce(std::span<std::int64_t>(ranks));
      if (ranks[1] > 0) {
        communicator.agree([&] {
          if (failure != nullptr) std::rethrow_exception(failure);
        });
      }
      over_ = ranks[0] < (joined_->uneven_ == UnevenInputs::join ? 1 : communicator.size());
      if (over_) batch_ = Batch();
    }

    const JoinedBatches* joined_;
    std::optional<Inner> next_;
    Batch batch_;
    bool has_next_ = false;
    bool over_ = false;
  };

  Iterator begin() const { return Iterator(*this); }
  std::default_sentinel_t end() const noexcept { return {}; }

 private:
  Batches* batches_;
  const Communicator* communicator_;
  UnevenInputs uneven_;
};

}  // namespace lockstep

#pragma GCC visibility pop
