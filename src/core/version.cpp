#include "lockstep/core/version.hpp"

namespace lockstep {

std::string_view version() noexcept { return LOCKSTEP_VERSION; }

}  // namespace lockstep
