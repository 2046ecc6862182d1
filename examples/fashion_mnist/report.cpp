#include "report.hpp"

#include <lockstep/train/chart.hpp>
#include <lockstep/train/metrics.hpp>
#include <map>
#include <string>
#include <variant>

using namespace lockstep::train;

namespace {

double number(const MetricValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  return std::get<double>(value);
}

}  // namespace

void draw_curves(const std::filesystem::path& metrics, const std::filesystem::path& picture) {
  ChartPanel loss{.title = "loss (cross-entropy)", .series = {{"train", {}}, {"test", {}}}};
  ChartPanel accuracy{.title = "accuracy (%)", .series = {{"train", {}}, {"test", {}}}};
  for (const MetricRecord& record : read_metrics(metrics)) {
    std::map<std::string, MetricValue> values;
    for (const Metric& metric : record) values[metric.name] = metric.value;
    const std::size_t series = std::get<std::string>(values.at("split")) == "train" ? 0 : 1;
    const double epoch = number(values.at("epoch"));
    loss.series[series].points.push_back({epoch, number(values.at("loss"))});
    accuracy.series[series].points.push_back({epoch, 100 * number(values.at("accuracy"))});
  }
  write_line_chart(picture, {.title = "Fashion-MNIST, 784-512-512-10",
                             .x_label = "epoch",
                             .panels = {std::move(loss), std::move(accuracy)}});
}
