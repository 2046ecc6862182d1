#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/parallel/compression.hpp"

namespace lockstep {
namespace {

// As integers, the bits of magnitudes are in the same order.
std::uint32_t magnitude(float number) { return std::bit_cast<std::uint32_t>(number) & 0x7FFFFFFF; }

struct Threshold {
  std::uint32_t magnitude;  // all above it are among the largest,
  std::size_t equal;        // and so many of those that are equal to it
};

// Of the k largest magnitudes, 1 ≤ k ≤ numbers.size(): found digit by digit, the highest first, from
// how many of the magnitudes with the digits known so far have which digit next.
Threshold find_threshold(std::span<const float> numbers, std::size_t k) {
  std::uint32_t known = 0, known_bits = 0;
  for (const int shift : {20, 10, 0}) {
    std::array<std::size_t, 2048> counts{};
    for (const float number : numbers) {
      const std::uint32_t bits = magnitude(number);
      if ((bits & known_bits) == known) ++counts[(bits & ~known_bits) >> shift];
    }
    std::size_t digit = counts.size() - 1;
    for (; counts[digit] < k; --digit) k -= counts[digit];
    known |= static_cast<std::uint32_t>(digit) << shift;
    known_bits = ~std::uint32_t{0} << shift;
  }
  return {known, k};
}

// A message is the indices of the numbers that are sent, in rising order, and then the numbers.
class TopKCompressor final : public TensorCompressor {
 public:
  explicit TopKCompressor(std::size_t k) : k_(k) {}

  std::vector<std::size_t> message_bytes() const override {
    return {k_ * (sizeof(std::uint32_t) + sizeof(float))};
  }

  void encode(std::size_t, std::span<float> gradient, std::span<std::byte> message) override {
    auto* indices = reinterpret_cast<std::uint32_t*>(message.data());
    auto* values = reinterpret_cast<float*>(indices + k_);
    auto [threshold, equal] = find_threshold(gradient, k_);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const std::uint32_t bits = magnitude(gradient[i]);
      if (bits < threshold || (bits == threshold && equal == 0)) continue;
      if (bits == threshold) --equal;
      *indices++ = static_cast<std::uint32_t>(i);
      *values++ = std::exchange(gradient[i], 0.0F);
    }
  }

  void decode(std::size_t, std::span<const NodeMessage> messages, std::span<float> mean) override {
    std::fill(mean.begin(), mean.end(), 0.0F);
    for (const auto& [bytes, share] : messages) {
      const auto* indices = reinterpret_cast<const std::uint32_t*>(bytes.data());
      const auto* values = reinterpret_cast<const float*>(indices + k_);
      const auto factor = static_cast<float>(share);
      for (std::size_t i = 0; i < k_; ++i) mean[indices[i]] += factor * values[i];
    }
  }

 private:
  std::size_t k_;
};

}  // namespace

TopK::TopK(const Options& options) : options_(options) {
  if (!(options.fraction > 0 && options.fraction <= 0.5)) {
    throw OptionError(
        fmt::format("top-k: expected 0 < fraction <= 0.5, found {}", options.fraction));
  }
  if (options.least_size < 1) {
    throw OptionError(fmt::format("top-k: expected least_size >= 1, found {}", options.least_size));
  }
}

std::string TopK::describe() const {
  return fmt::format("top-k of {}, from {} numbers, after {} reductions", options_.fraction,
                     options_.least_size, options_.first_reduction);
}

std::unique_ptr<TensorCompressor> TopK::compressor(const std::string&, const Shape& shape) const {
  const std::int64_t size = shape.size();
  if (size < options_.least_size || !std::in_range<std::uint32_t>(size)) return nullptr;
  const long long k = std::max(1LL, std::llround(options_.fraction * static_cast<double>(size)));
  return std::make_unique<TopKCompressor>(static_cast<std::size_t>(k));
}

}  // namespace lockstep
