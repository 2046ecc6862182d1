#include "lockstep/core/timeline.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <mutex>

#include "lockstep/core/error.hpp"

namespace lockstep::timeline {

std::atomic<bool> detail::recording = false;

namespace {

using Clock = std::chrono::steady_clock;

// Lines that are not written yet, and where they go.
class Writer {
 public:
  ~Writer() { close(); }

  void open(const std::string& file, int rank) {
    const std::lock_guard lock(mutex_);
    if (descriptor_ >= 0) throw StateError("a timeline is being recorded already");
    descriptor_ = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (descriptor_ < 0) {
      throw DataError(fmt::format("cannot write a timeline to '{}': {}", file, strerror(errno)));
    }
    rank_ = rank;
    began = Clock::now();
    fmt::format_to(
        std::back_inserter(lines_),
        "{{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":{0},\"args\":{{\"name\":\"rank "
        "{0}\"}}}},\n{{\"name\":\"process_sort_index\",\"ph\":\"M\",\"pid\":{0},\"args\":"
        "{{\"sort_index\":{0}}}}},\n",
        rank);
    detail::recording = true;
  }

  void close() {
    const std::lock_guard lock(mutex_);
    detail::recording = false;
    flush();
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

  void add(std::string_view name, double begin, double end, bool overlapping) {
    const std::lock_guard lock(mutex_);
    if (descriptor_ < 0) return;
    auto to = std::back_inserter(lines_);
    if (overlapping) {
      for (const auto& [phase, time] : {std::pair{'b', begin}, {'e', end}}) {
        fmt::format_to(to,
                       "{{\"name\":\"{}\",\"cat\":\"reduction\",\"ph\":\"{}\",\"id2\":{{\"local\":"
                       "\"{}\"}},\"ts\":{:.3f},"
                       "\"pid\":{},\"tid\":1}},\n",
                       name, phase, next_id_, time, rank_);
      }
      ++next_id_;
    } else {
      fmt::format_to(to,
                     "{{\"name\":\"{}\",\"ph\":\"X\",\"ts\":{:.3f},\"dur\":{:.3f},\"pid\":{},"
                     "\"tid\":0}},\n",
                     name, begin, end - begin, rank_);
    }
    constexpr std::size_t most = std::size_t{1} << 16;
    if (lines_.size() >= most) flush();
  }

  Clock::time_point began;

 private:
  // Whole lines in one call, since the ranks of a machine write to one file.
  void flush() {
    std::string_view rest = lines_;
    while (descriptor_ >= 0 && !rest.empty()) {
      const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) break;  // a full disk is no reason to end the training
      rest.remove_prefix(static_cast<std::size_t>(written));
    }
    lines_.clear();
  }

  std::mutex mutex_;
  int descriptor_ = -1;
  int rank_ = 0;
  std::int64_t next_id_ = 0;
  std::string lines_;
};

Writer& writer() {
  static Writer instance;
  return instance;
}

}  // namespace

void start(const std::string& file, int rank) { writer().open(file, rank); }

void stop() noexcept { writer().close(); }

double now() noexcept {
  return std::chrono::duration<double, std::micro>(Clock::now() - writer().began).count();
}

void record(std::string_view name, double begin, double end) {
  if (enabled()) writer().add(name, begin, end, false);
}

void record_overlapping(std::string_view name, double begin, double end) {
  if (enabled()) writer().add(name, begin, end, true);
}

}  // namespace lockstep::timeline
