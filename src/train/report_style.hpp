#pragma once

#include <string_view>

namespace lockstep::train {

/// The style sheet of a report. On dark pages pictures are turned to negatives of the same hues.
constexpr std::string_view report_style = R"css(
:root { color-scheme: light dark; --page: #f3f5f7; --card: #ffffff; --line: #d0d7de; --text: #24292f;
  --quiet: #59636e; --best: #dafbe1; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d0f12; --card: #191919; --line: #383d44; --text: #e3e7eb; --quiet: #9aa4ae;
    --best: #143d22; }
  svg { filter: invert(0.9) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(0.75rem, 3vw, 2rem) 3rem; max-width: 80rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.1rem; margin: 0 0 0.6rem; }
main, .charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
main { gap: 1.6rem 1rem; }
section, figure { margin: 0; min-width: 0; }
.wide { grid-column: 1 / -1; }
svg { display: block; width: 100%; height: auto; }
.charts figure, section > figure { max-width: 45rem; }
.facts { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 0 0 1rem; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 0.5rem 0.9rem; }
.facts dt { color: var(--quiet); font-size: 0.85rem; }
.facts dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll svg { min-width: 46rem; }
table { border-collapse: collapse; background: var(--card); font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: 0.3rem 0.75rem; text-align: right;
  overflow-wrap: normal; white-space: nowrap; }
th { font-weight: 600; }
th:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
th[scope=row], td:nth-child(2) { min-width: 4rem; max-width: 20rem; white-space: normal;
  overflow-wrap: anywhere; }
th[scope=row] { min-width: 8.5rem; font-weight: 400; }
.best { background: var(--best); font-weight: 600; }
@media (max-width: 40rem) {
  th, td { padding: 0.3rem 0.5rem; font-size: 0.9rem; }
  th[scope=row] { min-width: 6rem; }
}
small, .note { color: var(--quiet); }
small { font-size: 0.8rem; }
.note { margin: 0.4rem 0 0; font-size: 0.9rem; }
)css";

}  // namespace lockstep::train
