#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace lockstep::testing {

inline std::set<std::string> names_of_shared_memory() {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    const std::string name = entry.path().filename();
    if (name.starts_with("lockstep-")) names.insert(name);
  }
  return names;
}

inline const std::set<std::string> names_before = names_of_shared_memory();

/// Names of shared memory that lockstep leaves on this machine. What another job is about to make
/// has one too, but not for long.
inline std::size_t names_left() {
  std::set<std::string> left = names_of_shared_memory();
  for (const std::string& name : names_before) left.erase(name);
  for (int i = 0; i < 200 && !left.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const std::set<std::string> now = names_of_shared_memory();
    std::erase_if(left, [&](const std::string& name) { return !now.contains(name); });
  }
  return left.size();
}

/// Open descriptors of this process.
inline std::size_t descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += entry.path().empty() ? 0 : 1;
  }
  return count - 1;  // that of the folder itself
}

/// Bytes of addresses that this process has mapped.
inline std::size_t address_space() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

/// Lowers a limit of this process while it lives; going beyond that of file sizes is no signal.
class Limit {
 public:
  Limit(decltype(RLIMIT_AS) resource, std::size_t limit) : resource_(resource) {
    getrlimit(resource_, &before_);
    rlimit lowered = before_;
    lowered.rlim_cur = limit;
    setrlimit(resource_, &lowered);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  ~Limit() {
    setrlimit(resource_, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  decltype(RLIMIT_AS) resource_;
  rlimit before_{};
  void (*handler_)(int) = SIG_DFL;
};

}  // namespace lockstep::testing
