#pragma once

#pragma GCC visibility push(default)

namespace lockstep {

/// While it lives, arithmetic on this thread takes denormal numbers for zeros and gives zeros for them, on x86-64 and
/// AArch64: with them processors take many times as long, and a momentum that fades away stays one for ever. Rounding, traps
/// and the flags of exceptions are left alone. The operations and update rules of this library
/// have one; sums over ranks keep denormal numbers.
class FlushDenormals {
 public:
  FlushDenormals() noexcept;
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned long long before_ = 0;
};

}  // namespace lockstep

#pragma GCC visibility pop
