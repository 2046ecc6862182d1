#include "report.hpp"

#include <lockstep/train/chart.hpp>
#include <lockstep/train/metrics.hpp>
#include <map>
#include <string>
#include <variant>

using namespace lockstep;

namespace {

double number(const train::MetricValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  return std::get<double>(value);
}

}  // namespace

void draw_curves(const std::filesystem::path& metrics, const std::filesystem::path& picture) {
  train::ChartPanel loss{.title = "loss (cross-entropy)", .series = {{"train", {}}, {"test", {}}}};
  train::ChartPanel accuracy{.title = "accuracy (%)", .series = {{"train", {}}, {"test", {}}}};
  for (const train::MetricRecord& record : train::read_metrics(metrics)) {
    std::map<std::string, train::MetricValue> values;
    for (const train::Metric& metric : record) values[metric.name] = metric.value;
    const std::size_t series = std::get<std::string>(values.at("split")) == "train" ? 0 : 1;
    const double epoch = number(values.at("epoch"));
    loss.series[series].points.push_back({epoch, number(values.at("loss"))});
    accuracy.series[series].points.push_back({epoch, 100 * number(values.at("accuracy"))});
  }
  train::write_line_chart(picture, {.title = "Fashion-MNIST, 784-512-512-10",
                                    .x_label = "epoch",
                                    .panels = {std::move(loss), std::move(accuracy)}});
}
