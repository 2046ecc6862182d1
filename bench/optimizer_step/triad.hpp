#pragma once

#include <cstddef>
#include <vector>

/// The triad of STREAM, which is what the memory of one core can do: McCalpin, "Memory bandwidth
/// and machine balance in current high performance computers", 1995.
class Triad {
 public:
  explicit Triad(std::size_t size) : a_(size), b_(size, 1.0), c_(size, 2.0) {}

  /// a = b + s · c
  void run();
  /// Of one run, counted as STREAM does: every array once.
  double bytes() const { return static_cast<double>(3 * sizeof(double) * a_.size()); }

 private:
  std::vector<double> a_, b_, c_;
};
