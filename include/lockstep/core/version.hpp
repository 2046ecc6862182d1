#pragma once

#include <string_view>

#pragma GCC visibility push(default)

namespace lockstep {

/// The version of the library that is linked, as "0.1.0".
std::string_view version() noexcept;

}  // namespace lockstep

#pragma GCC visibility pop
