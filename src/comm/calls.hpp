#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/reduction.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

class KeptCommunicator;

/// The collective calls on one communicator, which all ranks make in the same order. Each is told to
/// the other ranks before it is made: where they do not all say the same, it is a StateError on all
/// of them that names two, and no call is made from then on.
class Calls {
 public:
  /// Values of up to so many bytes travel with the announcement.
  static constexpr std::size_t short_bytes = std::size_t{64} << 10;

  /// Collective. The communicator has several ranks.
  explicit Calls(const Communicator& communicator);
  /// Those on a communicator; nullptr where it has one rank, or is closed.
  static Calls* of(const Communicator& communicator);
  /// Announces what `job` says to all ranks of a communicator, where it has several.
  static void announce(const Communicator& communicator, const Job& job);
  /// What has to be told when a call is given up.
  static const std::shared_ptr<KeptCommunicator>& kept(const Communicator& communicator) noexcept;

  /// Waits until all ranks have announced what `job` says.
  void announce(const Job& job);
  /// The same in two steps: test() goes on without waiting, and says whether all have.
  void start(Job job);
  bool test() { return reduction_.poll(); }
  /// Throws where ranks have said what does not agree.
  void check_others() { reduction_.check_others(); }

  /// Combines values of all ranks in place, as an element and operation of `job`.
  void combine(std::byte* values, std::size_t bytes, Element element, ReduceOp op, Job job);

  /// Ends a wait for the others with a DeadlineError.
  [[noreturn]] void give_up(const Wait& wait) { reduction_.give_up(wait); }
  std::string describe_missing() const { return reduction_.describe_missing(); }
  /// No call is made any more, here and on the other ranks.
  void set_failed(const std::string& message) { reduction_.set_failed(message); }

  /// The next number for a reducer, of those on this communicator.
  std::uint32_t number_reducer() noexcept { return reducers_++; }

 private:
  Piece values_;
  Piece line_;  // of an announcement without values
  Reduction reduction_;
  std::uint32_t reducers_ = 0;
};

}  // namespace lockstep::comm
