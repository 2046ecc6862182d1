#include "lockstep/tensor/random.hpp"

#include <xxhash.h>

#include <cmath>
#include <iterator>
#include <limits>
#include <numbers>

#include "tensor/dispatch.hpp"
#include "tensor/philox.hpp"
#include "tensor/random_bits.hpp"

namespace lockstep {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

RandomKey RandomKey::fold(std::string_view name) const noexcept {
  return RandomKey(XXH3_64bits_withSeed(name.data(), name.size(), key_));
}

RandomKey RandomKey::fold(std::uint64_t number) const noexcept {
  // Hashed as little-endian bytes, so that a key means the same on every machine.
  std::array<unsigned char, 8> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(number >> (8 * i));
  }
  return RandomKey(XXH3_64bits_withSeed(bytes.data(), bytes.size(), key_));
}

std::uint64_t RandomKey::bits(std::uint64_t index) const noexcept {
  // A block of the generator holds two numbers.
  const std::uint64_t block = index / 2;
  const auto words =
      philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0},
                 {static_cast<std::uint32_t>(key_), static_cast<std::uint32_t>(key_ >> 32)});
  const std::size_t lane = 2 * (index % 2);
  return std::uint64_t{words[lane + 1]} << 32 | words[lane];
}

void RandomKey::bits(std::uint64_t first, std::span<std::uint64_t> numbers) const noexcept {
  if (numbers.empty()) return;
  if (first % 2 == 1) {
    numbers.front() = bits(first);
    return bits(first + 1, numbers.subspan(1));
  }
  kernels::philox_blocks(key_, first / 2, std::ssize(numbers) / 2, numbers.data());
  if (numbers.size() % 2 == 1) numbers.back() = bits(first + numbers.size() - 1);
}

namespace {

// The leading bits of a word as a number in [0, 1), as many as T holds exactly.
template <class T>
T to_unit(std::uint64_t bits) noexcept {
  constexpr int digits = std::numeric_limits<T>::digits;
  return static_cast<T>(bits >> (64 - digits)) * std::ldexp(T{1}, -digits);
}

}  // namespace

double RandomKey::uniform(std::uint64_t index) const noexcept {
  return to_unit<double>(bits(index));
}

std::uint64_t RandomKey::below(std::uint64_t bound, std::uint64_t index) const noexcept {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>(Wide{bits(index)} * bound >> 64);
}

void fill_uniform(Tensor& tensor, RandomKey key, double low, double high) {
  dispatch_floating(tensor.dtype(), [&]<class T>() {
    const T offset = static_cast<T>(low);
    const T range = static_cast<T>(high - low);
    for_each_with_bits(tensor.span<T>(), key, [=](T& element, std::uint64_t bits) {
      element = offset + range * to_unit<T>(bits);
    });
  });
}

void fill_normal(Tensor& tensor, RandomKey key, double mean, double stddev) {
  dispatch_floating(tensor.dtype(), [&]<class T>() {
    std::uint64_t index = 0;
    for (T& element : tensor.span<T>()) {
      // 1 - u lies in (0, 1], where the logarithm is finite.
      const double radius = std::sqrt(-2.0 * std::log(1.0 - key.uniform(2 * index)));
      const double angle = 2.0 * std::numbers::pi * key.uniform(2 * index + 1);
      element = static_cast<T>(mean + stddev * radius * std::cos(angle));
      ++index;
    }
  });
}

}  // namespace lockstep
