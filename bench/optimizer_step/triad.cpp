#include "triad.hpp"

void Triad::run() {
  constexpr double s = 3.0;
  double* a = a_.data();
  const double* b = b_.data();
  const double* c = c_.data();
  for (std::size_t i = 0; i < a_.size(); ++i) a[i] = b[i] + s * c[i];
}
