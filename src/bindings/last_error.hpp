#pragma once

namespace lockstep::bindings {

/// Keeps a message for lockstep_last_error() on this thread.
void set_last_error(const char* message, bool collective) noexcept;

}  // namespace lockstep::bindings
