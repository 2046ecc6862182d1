#include "train/report_page.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>

#include "train/report_style.hpp"
#include "train/svg_text.hpp"

namespace lockstep::train {
namespace {

using Out = std::back_insert_iterator<std::string>;

std::string readable(double number) {
  const double size = std::abs(number);
  if (size >= 1e3 && size < 1e15) return fmt::format("{:.0f}", number);
  return std::isnan(number) ? "NaN" : fmt::format("{:.4g}", number);
}

std::string chart(const ChartPanel& panel, std::string_view x_label) {
  return fmt::format("<figure aria-label=\"{}\">{}</figure>\n", svg_text(panel.title),
                     line_chart_svg({"", std::string(x_label), {panel}}));
}

// One picture for the numbers of a metric, and one for its lists.
std::string charts(const RunMetric& metric, std::string_view title, std::string_view x_label,
                   bool from_zero = false) {
  std::string html;
  for (const auto* series : {&metric.numbers, &metric.lists}) {
    if (!series->empty()) html += chart({std::string(title), *series, from_zero}, x_label);
  }
  return html;
}

struct Extremes {
  ChartPoint last, lowest, highest;
};

// Of the numbers that are finite, the first that is lowest and the first that is highest.
std::optional<Extremes> extremes(const ChartSeries& series) {
  std::optional<Extremes> found;
  for (const ChartPoint& point : series.points) {
    if (!std::isfinite(point.y)) continue;
    if (!found) found = {point, point, point};
    if (point.y < found->lowest.y) found->lowest = point;
    if (point.y > found->highest.y) found->highest = point;
  }
  if (found) found->last = series.points.back();
  return found;
}

std::string table(const RunMetrics& run) {
  std::string rows;
  for (const RunMetric& metric : run.metrics) {
    for (const ChartSeries& series : metric.numbers) {
      const auto found = extremes(series);
      if (!found) continue;
      const auto cell = [&](const ChartPoint& point, bool best) {
        return fmt::format("<td{}>{} <small>at {}</small></td>", best ? " class=\"best\"" : "",
                           readable(point.y), readable(point.x));
      };
      fmt::format_to(Out(rows), "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>{}{}</tr>\n",
                     svg_text(metric.title), svg_text(series.name), readable(found->last.y),
                     cell(found->lowest, metric.better == Better::lower),
                     cell(found->highest, metric.better == Better::higher));
    }
  }
  if (rows.empty()) return "<p class=\"note\">The metrics have no numbers.</p>\n";
  return fmt::format(
      "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">metric</th><th "
      "scope=\"col\">split"
      "</th><th scope=\"col\">last</th><th scope=\"col\">lowest <small>at {0}</small></th><th "
      "scope=\"col\">highest <small>at {0}</small></th></tr></thead>\n<tbody>\n{1}</tbody>\n"
      "</table></div>\n",
      run.x_label, rows);
}

// The mean of what is finite over all splits; NaN where nothing is.
double mean(const RunMetric& metric) {
  double sum = 0;
  double count = 0;
  for (const ChartSeries& series : metric.numbers) {
    for (const ChartPoint& point : series.points) {
      if (!std::isfinite(point.y)) continue;
      sum += point.y;
      ++count;
    }
  }
  return sum / count;
}

std::string facts(const RunMetrics& run, const TimelinePicture* timeline) {
  std::string html;
  const auto fact = [&html](std::string_view name, std::string_view value) {
    fmt::format_to(Out(html), "<div><dt>{}</dt><dd>{}</dd></div>\n", svg_text(name),
                   svg_text(value));
  };
  if (!std::isnan(run.last_step)) fact("steps", readable(run.last_step));
  if (!std::isnan(run.last_epoch)) fact("epochs", readable(run.last_epoch));
  const std::size_t ranks = run.ranks > 0 || timeline == nullptr ? run.ranks : timeline->ranks;
  if (ranks > 0) fact("ranks", fmt::format("{}", ranks));
  if (const RunMetric* rate = run.find("samples_per_second"); rate && !std::isnan(mean(*rate))) {
    fact("samples/s, mean", readable(mean(*rate)));
  }
  fact("records", fmt::format("{}", run.records));
  for (const auto& [name, text] : run.texts) fact(name, text);
  return "<dl class=\"facts\">\n" + html + "</dl>\n";
}

void add_section(std::string& page, std::string_view id, std::string_view title, bool wide,
                 std::string_view content) {
  fmt::format_to(Out(page), "<section id=\"{}\"{}>\n<h2>{}</h2>\n{}</section>\n", id,
                 wide ? " class=\"wide\"" : "", title, content);
}

constexpr std::string_view own_sections[] = {"lr", "samples_per_second", "waiting"};

std::string curves(const RunMetrics& run) {
  constexpr std::size_t most_metrics = 60;
  std::string html, left_out;
  std::size_t count = 0;
  for (const RunMetric& metric : run.metrics) {
    if (std::find(std::begin(own_sections), std::end(own_sections), metric.name) !=
        std::end(own_sections)) {
      continue;
    }
    if (++count <= most_metrics) {
      html += charts(metric, metric.title, run.x_label);
    } else {
      left_out += (left_out.empty() ? "" : ", ") + metric.name;
    }
  }
  if (html.empty()) return "<p class=\"note\">The metrics have none.</p>\n";
  html = "<div class=\"charts\">\n" + html + "</div>\n";
  if (left_out.empty()) return html;
  return html + fmt::format("<p class=\"note\">{} more metrics have no picture: {}</p>\n",
                            count - most_metrics, svg_text(left_out));
}

void add_own_section(std::string& page, const RunMetrics& run, std::string_view name,
                     std::string_view id, std::string_view title, std::string_view unit,
                     bool from_zero) {
  const RunMetric* metric = run.find(name);
  std::string html = metric == nullptr ? "" : charts(*metric, unit, run.x_label, from_zero);
  if (html.empty()) html = fmt::format("<p class=\"note\">The metrics have no “{}”.</p>\n", name);
  add_section(page, id, title, false, html);
}

std::string timeline_content(const TimelinePicture* timeline) {
  if (timeline == nullptr) {
    return "<p class=\"note\">There is no timeline: LOCKSTEP_TIMELINE=FILE has a program record "
           "one.</p>\n";
  }
  return fmt::format(
      "{}<p class=\"note\">{}</p>\n",
      timeline->svg.empty()
          ? ""
          : fmt::format("<div class=\"scroll\"><figure aria-label=\"timeline\">{}</figure></div>\n",
                        timeline->svg),
      timeline->caption);
}

}  // namespace

std::string report_page(std::string_view title, const RunMetrics& run,
                        const TimelinePicture* timeline) {
  // Whatever a name may contain, the page can neither load nor run anything.
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n<main>\n",
      svg_text(title), report_style);
  add_section(page, "summary", "Summary", true, facts(run, timeline) + table(run));
  add_section(page, "curves", "Curves", true, curves(run));
  add_own_section(page, run, "lr", "learning-rate", "Learning rate", "lr", false);
  add_own_section(page, run, "samples_per_second", "throughput", "Throughput", "samples/s", true);
  add_own_section(page, run, "waiting", "waiting", "Waiting by rank", "% of the time", true);
  add_section(page, "timeline", "Timeline", true, timeline_content(timeline));
  return page + "</main>\n</body>\n</html>\n";
}

}  // namespace lockstep::train
