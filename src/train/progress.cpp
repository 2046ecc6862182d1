#include "lockstep/train/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <utility>

#include "lockstep/core/error.hpp"
#include "train/progress_line.hpp"

namespace lockstep::train {
namespace {

constexpr double redraw_interval = 0.1;

// The width of the terminal behind a stream; 0 where there is none that a person looks at.
int terminal_columns(std::FILE* stream) {
  const int descriptor = fileno(stream);
  if (descriptor < 0 || isatty(descriptor) == 0) return 0;
  const char* term = std::getenv("TERM");
  if (term != nullptr && std::string_view(term) == "dumb") return 0;
  winsize size{};
  if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  return columns == nullptr ? 0 : std::clamp(std::atoi(columns), 0, 1000);
}

// A line break inside the line would leave what is above it on the screen.
std::string on_one_line(std::string_view text) {
  std::string result(text);
  std::replace_if(
      result.begin(), result.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  return result;
}

}  // namespace

Progress::Progress(std::string label, std::int64_t total, const ProgressOptions& options)
    : label_(on_one_line(label)), total_(total), options_(options), done_(options.initial) {
  if (total < 0)
    throw OptionError(fmt::format("expected a total ≥ 0 of a progress bar, found {}", total));
  if (options_.stream == nullptr) throw OptionError("a progress bar needs a stream, found null");
  options_.unit = on_one_line(options_.unit);
  if (!options_.enabled) return;
  terminal_ = terminal_columns(options_.stream) > 0;
  start_ = now();
  // The first line of a log waits for its turn; a bar shows at once.
  last_draw_ = terminal_ ? start_ - redraw_interval : start_;
}

Progress::~Progress() {
  if (!drawn_ || finished_ || !terminal_) return;
  std::fputc('\n', options_.stream);
  std::fflush(options_.stream);
}

void Progress::update(std::int64_t items_done, std::string_view text) {
  if (!options_.enabled || finished_) return;
  done_ = items_done;
  text_ = on_one_line(text);
  const double time = now();
  if (time - last_draw_ < (terminal_ ? redraw_interval : options_.line_interval)) return;
  last_draw_ = time;
  print(time, false);
}

void Progress::set_waiting(double share) { waiting_ = std::clamp(share, 0.0, 1.0); }

void Progress::finish() {
  if (!options_.enabled || finished_) return;
  finished_ = true;
  print(now(), true);
}

void Progress::print(double time, bool last) {
  const ProgressReport report{label_,           options_.unit, text_,         total_,
                              options_.initial, done_,         time - start_, waiting_};
  std::string line;
  if (terminal_) {
    // The last column stays free: a character in it makes some terminals go to the next line.
    const auto columns =
        static_cast<std::size_t>(std::max(terminal_columns(options_.stream), 2) - 1);
    const std::string text = last ? final_line(report, columns) : bar_line(report, columns);
    line = "\r" + text + "\x1b[K" + (last ? "\n" : "");
  } else {
    constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();
    line = (last ? final_line(report, no_limit) : log_line(report)) + "\n";
  }
  std::fwrite(line.data(), 1, line.size(), options_.stream);
  std::fflush(options_.stream);
  drawn_ = true;
}

double Progress::now() const {
  if (options_.clock) return options_.clock();
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

}  // namespace lockstep::train
