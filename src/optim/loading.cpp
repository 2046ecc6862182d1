#include "optim/loading.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "lockstep/core/error.hpp"

namespace lockstep::optim {

void check_strict(const LoadReport& report) {
  if (report.missing.empty() && report.unexpected.empty()) return;
  const auto list = [](const std::vector<std::string>& names) {
    return names.empty() ? std::string("none") : fmt::format("{}", fmt::join(names, ", "));
  };
  throw StateError(
      fmt::format("the state dict does not have the parameters of this optimizer: "
                  "missing: {}; unexpected: {}",
                  list(report.missing), list(report.unexpected)));
}

Tensor converted(const Tensor& numbers, DType dtype, const std::string& what) {
  Tensor result = numbers.to(dtype);
  const Tensor before = numbers.to(DType::f64), after = result.to(DType::f64);
  for (std::int64_t i = 0; i < before.size(); ++i) {
    const double number = before.data<double>()[i];
    if (std::isfinite(number) && !std::isfinite(after.data<double>()[i])) {
      throw StateError(
          fmt::format("{}: {} is outside the range of {}", what, number, to_string(dtype)));
    }
  }
  return result;
}

}  // namespace lockstep::optim
