#include "lockstep/checkpoint/background_saver.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <span>
#include <utility>

#include "checkpoint/collect.hpp"
#include "checkpoint/file.hpp"
#include "core/blocked_signals.hpp"
#include "core/stream_copy.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "state/checksum.hpp"
#include "state/state_hashes.hpp"

namespace lockstep::checkpoint {
namespace {

// Bytes that stay in the cache between their checksum and their copy.
constexpr std::size_t copied_at_once = std::size_t{1} << 18;

}  // namespace

struct BackgroundSaver::Writing {
  std::future<void> end;
};

BackgroundSaver::BackgroundSaver(const Communicator& communicator, WhenBusy when_busy)
    : communicator_(communicator), when_busy_(when_busy), writing_(std::make_unique<Writing>()) {}

BackgroundSaver::~BackgroundSaver() {
  if (!writing_->end.valid()) return;
  try {
    writing_->end.get();
  } catch (const std::exception& error) {
    log(LogLevel::warning, fmt::format("a save in the background has failed: {}", error.what()));
  }
}

bool BackgroundSaver::save_async(const std::string& path, const std::vector<Item>& items,
                                 const SaveOptions& options) {
  if (when_busy_ == WhenBusy::refuse && is_busy()) return false;
  wait();
  next_ = 0;
  const auto take = [this](Tensor& tensor) {
    return communicator_.rank() == 0 ? copy(tensor) : checksum(tensor);
  };
  collect(path, communicator_, items, options, take,
          [&](const Header& header, GatheredTensors& gathered) {
            std::vector<Tensor> tensors;
            for (std::size_t i = 0; i < gathered.size(); ++i) tensors.push_back(gathered.whole(i));
            const BlockedSignals blocked;
            writing_->end =
                std::async(std::launch::async, [path, header, tensors = std::move(tensors)] {
                  write_state(
                      path, header,
                      [&tensors](std::size_t i, const auto& put) { put(bytes_of(tensors[i])); },
                      *posix_file_system());
                });
          });
  copies_.resize(next_);
  return true;
}

void BackgroundSaver::wait() {
  communicator_.agree([this] {
    if (writing_->end.valid()) std::exchange(writing_->end, {}).get();
  });
}

bool BackgroundSaver::is_busy() const {
  std::int64_t busy = 0;
  if (writing_->end.valid()) {
    busy = writing_->end.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
  }
  communicator_.broadcast(std::span(&busy, 1));
  return busy != 0;
}

// Puts a copy in the place of a tensor, and returns its checksum.
std::uint64_t BackgroundSaver::copy(Tensor& tensor) {
  if (next_ == copies_.size()) copies_.emplace_back();
  Tensor& copy = copies_[next_++];
  if (!copy.defined() || copy.shape() != tensor.shape() || copy.dtype() != tensor.dtype()) {
    copy = Tensor();  // so that there are never two
    copy = Tensor::empty(tensor.shape(), tensor.dtype());
  }
  const Bytes from = bytes_of(tensor);
  const std::span to(static_cast<std::byte*>(copy.raw()), from.size());
  Checksum checksum;
  for (std::size_t begin = 0; begin < from.size(); begin += copied_at_once) {
    const Bytes piece = from.subspan(begin, std::min(copied_at_once, from.size() - begin));
    checksum.add(piece);
    stream_copy(to.subspan(begin, piece.size()), piece);
  }
  tensor = copy;
  return checksum.take();
}

}  // namespace lockstep::checkpoint
