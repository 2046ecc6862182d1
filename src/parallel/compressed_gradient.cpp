#include "parallel/compressed_gradient.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace lockstep {
namespace {

// Before what the compressor has written: a line, whose first byte says what it is.
constexpr std::size_t prefix_bytes = comm::line_bytes;
constexpr std::byte finite{1}, not_finite{2};

// gradient = sums / weight + left; returns whether all of it is finite.
template <class T>
bool add(std::span<const T> sums, double weight, std::span<const float> left,
         std::span<float> gradient) {
  const T factor = static_cast<T>(1 / weight);
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    gradient[i] = static_cast<float>(factor * sums[i]) + left[i];
  }
  return all_finite(gradient);
}

template <class T>
void write(std::span<const float> mean, double scale, T* range) {
  if (scale == 1 && static_cast<const void*>(mean.data()) == range) return;
  for (std::size_t i = 0; i < mean.size(); ++i) range[i] = static_cast<T>(scale * mean[i]);
}

}  // namespace

bool all_finite(std::span<const float> numbers) {
  bool finite = true;
  for (const float x : numbers)
    finite = finite & (std::abs(x) <= std::numeric_limits<float>::max());
  return finite;
}

CompressedGradient::CompressedGradient(std::unique_ptr<TensorCompressor> compressor,
                                       const comm::Piece& piece, const comm::Measured& measured,
                                       std::size_t lane)
    : Codec(piece, measured, lane),
      compressor_(std::move(compressor)),
      message_bytes_(compressor_->message_bytes()),
      size_(measured.numbers) {
  for (std::size_t& bytes : message_bytes_) bytes += prefix_bytes;
}

std::size_t CompressedGradient::padded_size() const {
  return piece().bytes / comm::item_size(piece().element);
}

void CompressedGradient::set_left(std::span<const float> left) {
  left_.assign(padded_size(), 0);
  std::copy(left.begin(), left.end(), left_.begin());
}

void* CompressedGradient::sums() {
  progress_.begun = true;
  gradient_.resize(padded_size());
  left_.resize(padded_size());
  if (piece().element == comm::Element::f32) return gradient_.data();
  mean_.resize(size_);
  sums_.resize(padded_size());
  return sums_.data();
}

void CompressedGradient::add_left(double weight) {
  const std::span gradient = std::span(gradient_).first(size_);
  finite_ = piece().element == comm::Element::f32
                ? add<float>(gradient, weight, left(), gradient)
                : add<double>(std::span(sums_).first(size_), weight, left(), gradient);
}

void CompressedGradient::encode(std::size_t round, double weight, std::span<std::byte> message) {
  if (round == 0) add_left(weight);
  message.front() = finite_ ? finite : not_finite;
  if (!finite_ || progress_.spoilt) return;
  compressor_->encode(round, std::span(gradient_).first(size_), message.subspan(prefix_bytes));
  progress_.encoded = true;
}

void CompressedGradient::decode(std::size_t round, std::span<const NodeMessage> messages,
                                double scale, std::byte* range) {
  messages_.clear();
  for (const NodeMessage& message : messages) {
    if (message.bytes.front() == not_finite) progress_.spoilt = true;
    messages_.push_back({message.bytes.subspan(prefix_bytes), message.share});
  }
  const bool last = round + 1 == message_bytes_.size();
  const bool single = piece().element == comm::Element::f32;
  const std::span<float> mean =
      single ? std::span(reinterpret_cast<float*>(range), size_) : std::span(mean_);
  if (!progress_.spoilt && !messages_.empty()) {
    compressor_->decode(round, messages_, mean);
    progress_.decoded = last;
    if (last && !all_finite(mean)) progress_.spoilt = true;
  }
  if (!last) return;
  if (progress_.spoilt || messages_.empty()) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    std::fill(mean.begin(), mean.end(), progress_.spoilt ? nan : 0.0F);
  }
  if (single) return write(mean, scale, reinterpret_cast<float*>(range));
  write(mean, scale, reinterpret_cast<double*>(range));
}

void CompressedGradient::end() {
  const Progress progress = std::exchange(progress_, {});
  if (!progress.begun) return;
  const bool used = progress.accepted && progress.decoded && !progress.spoilt;
  if (used && progress.encoded) left_.swap(gradient_);
  compressor_->end(used);
}

}  // namespace lockstep
