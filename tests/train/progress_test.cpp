#include "lockstep/train/progress.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace progress_test {

using train::Progress;
using train::ProgressOptions;

// A pseudo-terminal, and the screen that a person would see.
class Terminal {
 public:
  explicit Terminal(int columns) : columns_(columns) {
    master_ = posix_openpt(O_RDWR | O_NOCTTY);
    if (master_ < 0 || grantpt(master_) != 0 || unlockpt(master_) != 0) {
      throw std::runtime_error("no pseudo-terminal");
    }
    stream_ = std::fopen(ptsname(master_), "w");
    resize(columns);
  }
  ~Terminal() {
    std::fclose(stream_);
    close(master_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::FILE* stream() const { return stream_; }

  void resize(int columns) {
    winsize size{};
    size.ws_row = 24;
    size.ws_col = static_cast<unsigned short>(columns);
    ioctl(master_, TIOCSWINSZ, &size);
  }

  // What came since the last call, which also goes to the screen.
  std::string read() {
    constexpr char end = '\x04';
    std::fputc(end, stream_);
    std::fflush(stream_);
    std::string bytes;
    for (char byte = 0; ::read(master_, &byte, 1) == 1 && byte != end;) bytes += byte;
    show(bytes);
    return bytes;
  }

  // The lines of the screen, without the blanks at their ends.
  std::vector<std::string> screen() {
    read();
    std::vector<std::string> lines = lines_;
    for (std::string& line : lines) line.erase(line.find_last_not_of(' ') + 1);
    return lines;
  }

 private:
  void show(std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      if (bytes.substr(i).starts_with("\x1b[K")) {
        lines_.back().resize(column_);
        i += 2;
      } else if (bytes[i] == '\r') {
        column_ = 0;
      } else if (bytes[i] == '\n') {
        lines_.emplace_back();
      } else {
        if (column_ == static_cast<std::size_t>(columns_)) {
          lines_.emplace_back();
          column_ = 0;
        }
        lines_.back().resize(std::max(lines_.back().size(), column_ + 1), ' ');
        lines_.back()[column_++] = bytes[i];
      }
    }
  }

  int columns_;
  int master_ = -1;
  std::FILE* stream_ = nullptr;
  std::vector<std::string> lines_{""};
  std::size_t column_ = 0;
};

class ProgressTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("TERM", "xterm", 1);
    unsetenv("COLUMNS");
  }
  ProgressOptions options(std::FILE* stream) {
    return {.stream = stream, .unit = "images", .clock = [this] { return time_; }};
  }
  ProgressOptions options(const Terminal& terminal) { return options(terminal.stream()); }

  // What a loop of 60000 images in 100 s leaves in a file.
  std::string log_of(ProgressOptions changed, double line_interval = 10,
                     double waiting = std::nan("")) {
    const auto path = folder_ / "log";
    std::FILE* file = std::fopen(path.c_str(), "w");
    changed.stream = file;
    changed.line_interval = line_interval;
    {
      time_ = 0;
      Progress progress("epoch 1", 60000, changed);
      for (int step = 1; step <= 400; ++step) {
        time_ = 0.25 * step;
        progress.set_waiting(waiting);
        progress.update(150 * step, "loss 0.5");
      }
      progress.finish();
    }
    std::fclose(file);
    return read_bytes(path);
  }

  TemporaryFolder folder_;
  double time_ = 0;
};

using Lines = std::vector<std::string>;

TEST_F(ProgressTest, draws_one_line_on_a_terminal) {
  Terminal terminal(80);
  Progress progress("epoch 2", 60000, options(terminal));
  progress.update(0, "loss 2.303 acc 9.8 %");
  EXPECT_EQ(terminal.screen(), Lines{"epoch 2    0% [>               ]  -- images/s  --:-- left  "
                                     "loss 2.303 acc 9.8 %"});
  EXPECT_EQ(terminal.screen()[0].size(), 79U);
  time_ = 2;
  progress.update(24000, "loss 0.412 acc 85.1 %");
  EXPECT_EQ(terminal.screen(), Lines{"epoch 2   40% [=====>       ]  12.0k images/s  0:03 left  "
                                     "loss 0.412 acc 85.1 %"});
  time_ = 5;
  progress.update(60000, "loss 0.3");
  progress.finish();
  EXPECT_EQ(terminal.screen(),
            (Lines{"epoch 2:  60000 images in 0:05  12.0k images/s  loss 0.3", ""}));
}

TEST_F(ProgressTest, fits_any_terminal_and_leaves_no_garbage) {
  for (int columns = 1; columns <= 120; ++columns) {
    Terminal terminal(columns);
    for (const char* label : {"", "epoch 2",
                              "a label that is far longer than most terminals are wide, "
                              "and then some more of it, to be quite sure"}) {
      time_ = 0;
      const std::size_t before = terminal.screen().size();
      Progress progress(label, 1000, options(terminal));
      for (int step = 1; step <= 10; ++step) {
        time_ = step;
        progress.set_waiting(0.1 * step);
        progress.update(100 * step, std::string(static_cast<std::size_t>(90 - 9 * step), 'x'));
        ASSERT_EQ(terminal.screen().size(), before) << columns;
        ASSERT_LT(terminal.screen().back().size(), static_cast<std::size_t>(std::max(columns, 2)));
      }
      progress.finish();
      ASSERT_EQ(terminal.screen().size(), before + 1) << columns;
    }
  }
}

TEST_F(ProgressTest, shows_the_most_important_on_narrow_terminals) {
  const auto line = [this](int columns) {
    Terminal terminal(columns);
    time_ = 0;
    Progress progress("epoch 2", 60000, options(terminal));
    time_ = 2;
    progress.update(24000, "loss 0.412");
    return terminal.screen().back();
  };
  EXPECT_EQ(line(81),
            "epoch 2   40% [==========>              ]  12.0k images/s  0:03 left  loss 0.412");
  EXPECT_EQ(line(50), "epoch 2   40% [====>     ]  0:03 left  loss 0.412");
  EXPECT_EQ(line(40), "epoch 2   40%  0:03 left  loss 0.412");
  EXPECT_EQ(line(30), "epoch 2   40%  loss 0.412");
  EXPECT_EQ(line(15), "epoch 2   40%");
  EXPECT_EQ(line(12), "epoch   40%");
  EXPECT_EQ(line(6), " 40%");
}

TEST_F(ProgressTest, shows_the_share_of_waiting_where_it_is_known_and_there_is_room) {
  const auto line = [this](int columns, double share) {
    Terminal terminal(columns);
    time_ = 0;
    Progress progress("epoch 2", 60000, options(terminal));
    progress.set_waiting(share);
    time_ = 2;
    progress.update(24000, "loss 0.412");
    return terminal.screen().back();
  };
  EXPECT_EQ(line(80, 0.034),
            "epoch 2   40% [=====>        ]  12.0k images/s  wait 3 %  0:03 left  loss 0.412");
  EXPECT_EQ(line(66, 1.5), "epoch 2   40%  12.0k images/s  wait 100 %  0:03 left  loss 0.412");
  EXPECT_EQ(line(64, 0.034), "epoch 2   40%  12.0k images/s  wait 3 %  0:03 left  loss 0.412");
  EXPECT_EQ(line(62, 0.034), line(62, std::nan("")));
  EXPECT_EQ(line(64, std::nan("")),
            "epoch 2   40% [===>    ]  12.0k images/s  0:03 left  loss 0.412");
}

TEST_F(ProgressTest, never_cuts_through_a_utf8_character) {
  Terminal terminal(24);
  Progress progress("", 10, options(terminal));
  time_ = 1;
  progress.update(5, "ééééééééééééééééééééééééé");
  std::string expected = "\r 50%  ";
  for (int i = 0; i < 17; ++i) expected += "é";
  EXPECT_EQ(terminal.read(), expected + "\x1b[K");
}

TEST_F(ProgressTest, follows_the_width_of_the_terminal) {
  Terminal terminal(80);
  Progress progress("epoch 2", 60000, options(terminal));
  progress.update(0);
  terminal.read();
  terminal.resize(20);
  time_ = 1;
  progress.update(100);
  EXPECT_LE(terminal.read().size(), 19 + std::string("\r\x1b[K").size());
}

TEST_F(ProgressTest, redraws_ten_times_a_second_at_most) {
  Terminal terminal(80);
  Progress progress("epoch", 1000, options(terminal));
  int draws = 0;
  for (int step = 0; step < 1000; ++step) {
    time_ = 0.001 * step;
    progress.update(step);
    if (!terminal.read().empty()) ++draws;
  }
  EXPECT_GE(draws, 9);
  EXPECT_LE(draws, 10);
}

TEST_F(ProgressTest, keeps_line_breaks_and_escapes_off_the_line) {
  Terminal terminal(80);
  Progress progress("a\nb", 10, options(terminal));
  progress.update(5, "c\r\nd\x1b[2Je");
  EXPECT_EQ(terminal.screen().size(), 1U);
  EXPECT_NE(terminal.screen()[0].find("c  d [2Je"), std::string::npos) << terminal.screen()[0];
  EXPECT_EQ(terminal.screen()[0].substr(0, 3), "a b");
}

TEST_F(ProgressTest, ends_the_line_when_the_loop_is_left_early) {
  Terminal terminal(80);
  {
    Progress progress("epoch", 10, options(terminal));
    progress.update(5);
  }
  EXPECT_EQ(terminal.screen().size(), 2U);
  { const Progress unused("epoch", 10, options(terminal)); }
  EXPECT_EQ(terminal.screen().size(), 2U);
}

TEST_F(ProgressTest, counts_without_a_percentage_where_the_total_is_zero) {
  Terminal terminal(80);
  Progress progress("reading", 0, options(terminal));
  time_ = 2;
  progress.update(500, "file 3");
  EXPECT_EQ(terminal.screen(), Lines{"reading  500 images  250 images/s  file 3"});
  progress.finish();
  EXPECT_EQ(terminal.screen()[0], "reading:  500 images in 0:02  250 images/s  file 3");
}

TEST_F(ProgressTest, survives_more_items_than_its_total_and_a_clock_that_stands_still) {
  Terminal terminal(60);
  Progress progress("e", 10, options(terminal));
  progress.update(25);
  EXPECT_EQ(terminal.screen(),
            Lines{"e  100% [========================]  -- images/s  --:-- left"});
  progress.finish();
  EXPECT_EQ(terminal.screen()[0], "e:  25/10 images in 0:00  -- images/s");
}

TEST_F(ProgressTest, shows_times_over_an_hour_and_slow_rates) {
  Terminal terminal(80);
  Progress progress("e", 100, options(terminal));
  time_ = 3661;
  progress.update(20);
  const std::string line = terminal.screen()[0];
  EXPECT_NE(line.find("0.01 images/s  4:04:04 left"), std::string::npos) << line;
  time_ = 7322;
  progress.finish();
  EXPECT_EQ(terminal.screen()[0], "e:  20/100 images in 2:02:02  0.00 images/s");
}

TEST_F(ProgressTest, leaves_items_of_before_a_resume_out_of_the_rate) {
  Terminal terminal(80);
  ProgressOptions resumed = options(terminal);
  resumed.initial = 500;
  Progress progress("e", 1000, resumed);
  time_ = 1;
  progress.update(600);
  const std::string line = terminal.screen()[0];
  EXPECT_NE(line.find(" 60% ["), std::string::npos) << line;
  EXPECT_NE(line.find("100 images/s  0:04 left"), std::string::npos) << line;
}

TEST_F(ProgressTest, counts_items_of_before_a_resume_that_has_nothing_to_do) {
  Terminal terminal(80);
  ProgressOptions resumed = options(terminal);
  resumed.initial = 1000;
  Progress progress("e", 1000, resumed);
  progress.finish();
  EXPECT_EQ(terminal.screen()[0], "e:  1000 images in 0:00  -- images/s");
}

TEST_F(ProgressTest, shows_100_percent_only_at_the_end) {
  Terminal terminal(80);
  Progress progress("e", 1000, options(terminal));
  progress.update(999);
  EXPECT_EQ(terminal.screen()[0].substr(0, 8), "e   99% ");
  EXPECT_NE(terminal.screen()[0].find(">]"), std::string::npos);
  time_ = 1;
  progress.update(1000);
  EXPECT_EQ(terminal.screen()[0].substr(0, 8), "e  100% ");
  EXPECT_NE(terminal.screen()[0].find("=]"), std::string::npos);
}

TEST_F(ProgressTest, writes_plain_lines_to_a_file) {
  EXPECT_EQ(log_of(options(nullptr), 40),
            "epoch 1:  24000/60000 images   40%  600 images/s  1:00 left  loss 0.5\n"
            "epoch 1:  48000/60000 images   80%  600 images/s  0:20 left  loss 0.5\n"
            "epoch 1:  60000 images in 1:40  600 images/s  loss 0.5\n");
  EXPECT_EQ(log_of(options(nullptr), 60, 0.5),
            "epoch 1:  36000/60000 images   60%  600 images/s  wait 50 %  0:40 left  loss 0.5\n"
            "epoch 1:  60000 images in 1:40  600 images/s  wait 50 %  loss 0.5\n");
  const std::string often = log_of(options(nullptr), 10);
  EXPECT_EQ(std::count(often.begin(), often.end(), '\n'), 11);
}

TEST_F(ProgressTest, prints_nothing_when_it_is_disabled) {
  ProgressOptions disabled = options(nullptr);
  disabled.enabled = false;
  EXPECT_EQ(log_of(disabled), "");
}

// mpirun gives its ranks a terminal without a width when its own output goes to a file.
TEST_F(ProgressTest, takes_a_terminal_without_width_for_a_file_unless_columns_is_set) {
  Terminal terminal(0);
  {
    Progress progress("e", 10, options(terminal));
    progress.update(5);
    progress.finish();
  }
  EXPECT_EQ(terminal.read(), "e:  5/10 images in 0:00  -- images/s\r\n");
  setenv("COLUMNS", "30", 1);
  Progress progress("e", 10, options(terminal));
  progress.update(5);
  EXPECT_EQ(terminal.read(), "\re   50% [===>   ]  --:-- left\x1b[K");
}

TEST_F(ProgressTest, takes_a_dumb_terminal_for_a_file) {
  setenv("TERM", "dumb", 1);
  Terminal terminal(80);
  Progress progress("e", 10, options(terminal));
  progress.update(5);
  EXPECT_EQ(terminal.read(), "");
}

TEST_F(ProgressTest, ignores_what_comes_after_finish) {
  Terminal terminal(80);
  Progress progress("e", 10, options(terminal));
  progress.finish();
  const std::string first = terminal.read();
  EXPECT_FALSE(first.empty());
  time_ = 5;
  progress.update(7);
  progress.finish();
  EXPECT_EQ(terminal.read(), "");
}

TEST_F(ProgressTest, refuses_a_negative_total_and_a_null_stream) {
  EXPECT_THROW(Progress("e", -1), OptionError);
  EXPECT_THROW(Progress("e", 1, options(nullptr)), OptionError);
}

}  // namespace progress_test
}  // namespace lockstep::testing
