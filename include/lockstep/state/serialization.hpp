#pragma once

#include <cstdint>
#include <string>

#include "lockstep/state/state_dict.hpp"

#pragma GCC visibility push(default)

// A StateDict in an archive of the caller's: archive & state, with text and binary archives of
// Boost.Serialization, in files and streams that a program has already. Tensors are restored in memory of
// their own. Equal states give equal bytes.
//
// Such an archive has no checksum, and Boost trusts the lengths in it: load only what is known to be whole.
// lockstep/checkpoint/checkpoint.hpp has files that tell when they are not.
namespace lockstep {

namespace detail {

/// What an archive can do, whatever its type.
class StateArchive {
 public:
  virtual ~StateArchive() = default;
  virtual void number(std::uint64_t& value) = 0;
  virtual void text(std::string& value) = 0;
};

template <class Archive>
class StateArchiveOf final : public StateArchive {
 public:
  explicit StateArchiveOf(Archive& archive) : archive_(archive) {}
  void number(std::uint64_t& value) override { archive_& value; }
  void text(std::string& value) override { archive_& value; }

 private:
  Archive& archive_;
};

void save(StateArchive& archive, const StateDict& state);
/// StateError where what the archive holds is not a state.
StateDict load(StateArchive& archive);

}  // namespace detail

/// Found by Boost. Loading replaces the contents of `state`, or throws StateError and leaves it as it was.
template <class Archive>
void serialize(Archive& archive, StateDict& state, unsigned int /*version*/) {
  detail::StateArchiveOf<Archive> adapter(archive);
  if constexpr (Archive::is_saving::value) {
    detail::save(adapter, state);
  } else {
    state = detail::load(adapter);
  }
}

}  // namespace lockstep

#pragma GCC visibility pop
