#include "picture.hpp"

#include <fmt/format.h>

#include <cmath>
#include <lockstep/train/heat_map.hpp>
#include <lockstep/train/metrics.hpp>
#include <span>
#include <string>
#include <utility>
#include <variant>

using namespace lockstep;

namespace {

train::Chart curves(const std::filesystem::path& metrics) {
  train::ChartPanel misfit{.title = "log10 of the misfit: 0 is the noise", .series = {{}}};
  train::ChartPanel error{
      .title = "error of the conductivity (%)", .series = {{}}, .from_zero = true};
  for (const train::MetricRecord& record : train::read_metrics(metrics)) {
    double evaluation = 0;
    for (const train::Metric& metric : record) {
      if (const auto* count = std::get_if<std::int64_t>(&metric.value)) {
        if (metric.name == "evaluations") evaluation = static_cast<double>(*count);
      } else if (const auto* value = std::get_if<double>(&metric.value)) {
        if (metric.name == "misfit") {
          misfit.series[0].points.push_back({evaluation, std::log10(*value)});
        } else if (metric.name == "error") {
          error.series[0].points.push_back({evaluation, 100 * *value});
        }
      }
    }
  }
  return {.title = "",
          .x_label = "gradients computed",
          .panels = {std::move(misfit), std::move(error)}};
}

}  // namespace

void draw_picture(const std::filesystem::path& picture, const std::filesystem::path& metrics,
                  const Inversion& inversion, std::int64_t experiments) {
  const std::size_t cells = inversion.solver().cells();
  const auto map = [&](std::string title, std::span<const double> logarithms) {
    train::HeatMap made{
        .title = std::move(title), .values = {}, .columns = cells, .low = -2, .high = 2};
    for (const double value : logarithms) made.values.push_back(value / std::log(2.0));
    return made;
  };
  train::HeatMap truth =
      map(fmt::format("true, {} sources, {} sensors", experiments, sensor_cells(cells).size()),
          inversion.truth());
  train::HeatMap found = map(fmt::format("found, error {:.1f} %", 100 * inversion.error()),
                             inversion.solver().log_conductivity());
  train::HeatMap difference = found;
  difference.title = "found − true";
  difference.diverging = true;
  for (std::size_t i = 0; i < cells * cells; ++i) difference.values[i] -= truth.values[i];
  for (const std::size_t cell : sensor_cells(cells)) {
    truth.dots.push_back(
        {static_cast<double>(cell % cells) + 0.5, static_cast<double>(cell / cells) + 0.5});
  }
  for (std::int64_t i = 0; i < experiments; ++i) {
    const Point source = source_position(i);
    truth.crosses.push_back(
        {source.x * static_cast<double>(cells), source.y * static_cast<double>(cells)});
  }
  train::write_field_picture(picture,
                             {.title = "log2 of the conductivity",
                              .maps = {std::move(truth), std::move(found), std::move(difference)},
                              .chart = curves(metrics)});
}
