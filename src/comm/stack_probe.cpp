#include "comm/stack_probe.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <thread>

#include <fmt/format.h>

namespace lockstep::comm {
namespace {

int probe_signal() { return SIGRTMIN + 1; }

constexpr int most_frames = 48;
std::array<void*, most_frames> probed_frames;
std::atomic<int> probed_count = 0;

void take_frames(int) {
  const int saved = errno;
  probed_count = backtrace(probed_frames.data(), most_frames);
  errno = saved;
}

std::string function_at(void* address) {
  Dl_info info{};
  if (dladdr(address, &info) == 0) return "?";
  if (info.dli_sname != nullptr) {
    int status = 0;
    char* const plain = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
    std::string name = plain != nullptr ? plain : info.dli_sname;
    std::free(plain);
    return name;
  }
  return fmt::format(
      "{} +{:#x}", info.dli_fname,
      reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
}

}  // namespace

std::vector<std::string> function_names(std::span<void* const> frames) {
  constexpr std::size_t of_handler = 2;  // with what has called it
  std::vector<std::string> names;
  for (std::size_t frame = of_handler; frame < frames.size(); ++frame) {
    names.push_back(function_at(frames[frame]));
    if (names.back() == "main") break;
  }
  return names;
}

StackProbe::StackProbe() {
  // The first call loads a library, which a handler must not do.
  backtrace(probed_frames.data(), most_frames);
  struct sigaction action {};
  action.sa_handler = take_frames;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(probe_signal(), &action, &before_);
}

StackProbe::~StackProbe() { sigaction(probe_signal(), &before_, nullptr); }

std::vector<std::string> StackProbe::capture() const {
  using namespace std::chrono_literals;
  probed_count = 0;
  if (pthread_kill(thread_, probe_signal()) != 0) return {};
  for (int i = 0; i < 100 && probed_count == 0; ++i) std::this_thread::sleep_for(1ms);
  return function_names(std::span(probed_frames).first(static_cast<std::size_t>(probed_count)));
}

}  // namespace lockstep::comm
