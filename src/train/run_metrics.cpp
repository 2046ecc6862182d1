#include "train/run_metrics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

namespace lockstep::train {
namespace {

using List = std::vector<double>;

constexpr std::array<MetricMeaning, 5> meanings{{
    {"loss", "loss", 1, Better::lower},
    {"accuracy", "accuracy (%)", 100, Better::higher},
    {"lr", "learning rate"},
    {"samples_per_second", "samples/s"},
    {"waiting", "waiting (% of the time)", 100},
}};

MetricMeaning meaning_of(std::string_view name) {
  for (const MetricMeaning& meaning : meanings) {
    if (meaning.name == name) return meaning;
  }
  return {name, name};
}

std::optional<double> number(const MetricValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return static_cast<double>(*integer);
  const auto* real = std::get_if<double>(&value);
  return real == nullptr ? std::nullopt : std::optional(*real);
}

std::optional<double> number_of(const MetricRecord& record, std::string_view name) {
  for (const Metric& metric : record) {
    if (metric.name == name) return number(metric.value);
  }
  return std::nullopt;
}

std::string text_of(const MetricRecord& record, std::string_view name) {
  for (const Metric& metric : record) {
    if (metric.name != name) continue;
    if (const auto* text = std::get_if<std::string>(&metric.value)) return *text;
  }
  return {};
}

ChartSeries& series_named(std::vector<ChartSeries>& all, std::string_view name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& one) { return one.name == name; });
  return found != all.end() ? *found : all.emplace_back(ChartSeries{std::string(name), {}});
}

// Numbers first, in their order; NaN last.
bool comes_before(double a, double b) { return a < b || (std::isnan(b) && !std::isnan(a)); }

class Collector {
 public:
  explicit Collector(RunMetrics& run) : run_(run) {}

  void add(const MetricRecord& record, double x) {
    const std::string split = text_of(record, "split");
    for (const auto& [name, value] : record) {
      if (name == "split" || name == "step" || name == "epoch") continue;
      if (const auto* text = std::get_if<std::string>(&value)) {
        set_text(name, *text);
      } else if (const auto* list = std::get_if<List>(&value)) {
        if (name == "waiting") run_.ranks = list->size();
        add_list(name, split, x, *list);
      } else {
        const double scaled = meaning_of(name).scale * *number(value);
        series_named(metric(name).numbers, split).points.push_back({x, scaled});
      }
    }
  }

 private:
  RunMetric& metric(const std::string& name) {
    const auto [place, is_new] = places_.try_emplace(name, run_.metrics.size());
    if (is_new) {
      const MetricMeaning meaning = meaning_of(name);
      run_.metrics.push_back({name, std::string(meaning.title), meaning.better, {}, {}});
    }
    return run_.metrics[place->second];
  }

  void set_text(const std::string& name, const std::string& text) {
    const auto found = std::find_if(run_.texts.begin(), run_.texts.end(),
                                    [&](const auto& known) { return known.first == name; });
    if (found != run_.texts.end()) {
      found->second = text;
    } else {
      run_.texts.emplace_back(name, text);
    }
  }

  void add_list(const std::string& name, const std::string& split, double x, List list) {
    std::vector<ChartSeries>& all = metric(name).lists;
    const std::string of_split = split.empty() || split == "train" ? "" : split + ", ";
    const auto add_point = [&](std::string_view series, double y) {
      const double scaled = meaning_of(name).scale * y;
      series_named(all, of_split + std::string(series)).points.push_back({x, scaled});
    };
    constexpr std::size_t most_curves = 8;
    if (list.size() <= most_curves) {
      const std::string_view element = name == "waiting" ? "rank " : "";
      for (std::size_t i = 0; i < list.size(); ++i) {
        add_point(fmt::format("{}{}", element, i), list[i]);
      }
      return;
    }
    std::sort(list.begin(), list.end(), comes_before);
    const auto end = std::find_if(list.begin(), list.end(), [](double y) { return std::isnan(y); });
    const auto count = static_cast<std::size_t>(end - list.begin());
    if (count == 0) return;
    add_point("greatest", list[count - 1]);
    add_point("median", (list[(count - 1) / 2] + list[count / 2]) / 2);
    add_point("least", list[0]);
  }

  RunMetrics& run_;
  std::map<std::string, std::size_t> places_;
};

}  // namespace

const RunMetric* RunMetrics::find(std::string_view name) const {
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const RunMetric& metric) { return metric.name == name; });
  return found == metrics.end() ? nullptr : &*found;
}

RunMetrics collect_metrics(const std::vector<MetricRecord>& records) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  RunMetrics run;
  run.records = records.size();
  run.last_step = run.last_epoch = nan;
  for (const MetricRecord& record : records) {
    run.last_step = number_of(record, "step").value_or(run.last_step);
    run.last_epoch = number_of(record, "epoch").value_or(run.last_epoch);
  }
  run.x_label = !std::isnan(run.last_step)    ? "step"
                : !std::isnan(run.last_epoch) ? "epoch"
                                              : "record";
  Collector collector(run);
  double x = 0;  // a record that does not tell is where the one before it was
  for (const MetricRecord& record : records) {
    x = run.x_label == "record" ? x + 1 : number_of(record, run.x_label).value_or(x);
    collector.add(record, x);
  }
  return run;
}

}  // namespace lockstep::train
