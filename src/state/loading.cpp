#include "state/loading.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "lockstep/core/error.hpp"

namespace lockstep {

void check_strict(const LoadReport& report) {
  if (report.missing.empty() && report.unexpected.empty()) return;
  const auto list = [](const std::vector<std::string>& names) {
    return names.empty() ? std::string("none") : fmt::format("{}", fmt::join(names, ", "));
  };
  throw StateError(fmt::format("the state dict has other names: missing: {}; unexpected: {}",
                               list(report.missing), list(report.unexpected)));
}

void check_names(const StateDict& own, const StateDict& source) {
  LoadReport report;
  for (const auto& [name, value] : own) {
    if (!source.contains(name)) report.missing.push_back(name);
  }
  for (const auto& [name, value] : source) {
    if (!own.contains(name)) report.unexpected.push_back(name);
  }
  check_strict(report);
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

}  // namespace lockstep
