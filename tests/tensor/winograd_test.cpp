#include "tensor/winograd.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/activations.hpp"
#include "tensor/direct_convolution.hpp"
#include "tensor/kernel_fixture.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::kernels {
namespace winograd_test {

using testing::draw;
using testing::same_bits;

template <class T>
class Winograd : public testing::Kernels<T> {};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Winograd, Floating);

struct Case {
  std::int64_t height, width, padding, channels, maps;

  Windows windows() const {
    return {{},
            {.extent = height, .kernel = 3, .padding = padding},
            {.extent = width, .kernel = 3, .padding = padding}};
  }
};

// Even and odd extents, one square or many blocks of them, channels of more than one block.
constexpr Case cases[] = {{3, 3, 0, 1, 1},     {1, 1, 1, 2, 3},    {14, 14, 1, 32, 64},
                          {13, 9, 0, 17, 19},  {7, 30, 2, 16, 25}, {6, 6, 1, 300, 20},
                          {40, 37, 1, 33, 40}, {4, 5, 3, 3, 2},    {64, 64, 1, 64, 64}};

template <class T>
struct Draw {
  explicit Draw(const Case& of)
      : weight(draw<T>(of.maps * of.channels * 9, 1)),
        bias(draw<T>(of.maps, 2)),
        image(draw<T>(of.channels * of.height * of.width, 3)) {}

  std::vector<T> weight, bias, image;
};

// The sum of the sizes of all products, and the rounding of one.
template <class T>
double bound(const Case& of) {
  return 4 * 9 * static_cast<double>(of.channels) *
         static_cast<double>(std::numeric_limits<T>::epsilon());
}

TYPED_TEST(Winograd, is_a_convolution) {
  using T = TypeParam;
  for (const Case& of : cases) {
    const Draw<T> drawn(of);
    DirectConvolution<T> direct(of.windows(), of.channels, of.maps);
    WinogradConvolution<T> winograd(of.windows(), of.channels, of.maps);
    direct.set_weight(drawn.weight.data());
    winograd.set_weight(drawn.weight.data());
    const std::int64_t size = of.maps * of.windows().count();
    for (const Activation f : {Activation::none, Activation::relu, Activation::tanh}) {
      for (const T* bias : {drawn.bias.data(), static_cast<const T*>(nullptr)}) {
        std::vector<T> expected = draw<T>(size, 4), found = draw<T>(size, 5);
        direct.convolve(drawn.image.data(), bias, f, expected.data());
        winograd.convolve(drawn.image.data(), bias, f, found.data());
        for (std::size_t i = 0; i < found.size(); ++i) {
          ASSERT_NEAR(found[i], expected[i], bound<T>(of)) << of.height << " × " << of.width;
        }
      }
    }
    std::vector<T> expected = draw<T>(size, 4), found = expected;
    direct.add_convolved(drawn.image.data(), expected.data());
    winograd.add_convolved(drawn.image.data(), found.data());
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], bound<T>(of)) << of.height << " × " << of.width;
    }
  }
}

TYPED_TEST(Winograd, is_exact_where_nothing_is_rounded) {
  using T = TypeParam;
  const Case of{9, 12, 1, 24, 24};
  const auto whole = [](std::vector<T> numbers) {
    for (T& number : numbers) number = std::round(number * 4);
    return numbers;
  };
  const Draw<T> drawn(of);
  DirectConvolution<T> direct(of.windows(), of.channels, of.maps);
  WinogradConvolution<T> winograd(of.windows(), of.channels, of.maps);
  const std::vector<T> weight = whole(drawn.weight), image = whole(drawn.image);
  direct.set_weight(weight.data());
  winograd.set_weight(weight.data());
  std::vector<T> expected = draw<T>(of.maps * of.windows().count(), 4), found = expected;
  direct.convolve(image.data(), nullptr, Activation::none, expected.data());
  winograd.convolve(image.data(), nullptr, Activation::none, found.data());
  EXPECT_EQ(found, expected);
}

TYPED_TEST(Winograd, gives_an_image_the_same_bits_after_any_other) {
  using T = TypeParam;
  const Case of{13, 14, 1, 24, 26};
  const Draw<T> drawn(of);
  const std::int64_t size = of.maps * of.windows().count();
  std::vector<T> first(static_cast<std::size_t>(size)), again = first;
  WinogradConvolution<T> winograd(of.windows(), of.channels, of.maps);
  winograd.set_weight(drawn.weight.data());
  winograd.convolve(drawn.image.data(), drawn.bias.data(), Activation::relu, first.data());
  const std::vector<T> other(drawn.image.size(), this->nan);
  winograd.convolve(other.data(), drawn.bias.data(), Activation::relu, again.data());
  winograd.convolve(drawn.image.data(), drawn.bias.data(), Activation::relu, again.data());
  EXPECT_TRUE(same_bits(first.data(), again.data(), first.size()));
}

// dw of three images, from `begin` on: of a DirectWeightGradient, and of a WinogradWeightGradient for each part of the maps.
template <class T>
struct WeightGradients {
  std::vector<T> direct, winograd;

  WeightGradients(const Case& of, const std::vector<T>* begin, std::int64_t parts, auto round) {
    const Windows windows = of.windows();
    const std::int64_t size = of.maps * of.channels * 9, count = windows.count();
    DirectWeightGradient<T> plain(windows, of.channels, of.maps);
    direct.resize(static_cast<std::size_t>(size)), winograd = direct;
    if (begin != nullptr) {
      winograd = *begin;
      plain.begin_with(begin->data());
    }
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t first = of.maps * part / parts, end = of.maps * (part + 1) / parts;
      WinogradWeightGradient<T> fast(windows, of.channels, end - first);
      for (std::uint64_t sample = 0; sample < 3; ++sample) {
        const auto image = round(draw<T>(of.channels * windows.pixels(), 3 + sample));
        const auto dz = round(draw<T>(of.maps * count, 6 + sample));
        fast.add(image.data(), dz.data() + first * count);
        if (part == 0) plain.add(image.data(), dz.data());
      }
      fast.store(winograd.data() + first * of.channels * 9, begin != nullptr);
    }
    plain.store(direct.data());
  }
};

TYPED_TEST(Winograd, weight_gradient_is_that_of_the_convolution) {
  using T = TypeParam;
  const auto as_they_are = [](std::vector<T> numbers) { return numbers; };
  for (const Case& of : cases) {
    const std::vector<T> begin = draw<T>(of.maps * of.channels * 9, 9);
    for (const auto* before : {static_cast<const std::vector<T>*>(nullptr), &begin}) {
      const WeightGradients<T> found(of, before, 1, as_they_are);
      // The sizes of the products of a tap in all windows of the three images, times those of a square, and their rounding.
      const double most = 4 * 3 * static_cast<double>(of.windows().count()) *
                          static_cast<double>(std::numeric_limits<T>::epsilon());
      for (std::size_t i = 0; i < found.direct.size(); ++i) {
        ASSERT_NEAR(found.winograd[i], found.direct[i], most) << of.height << " × " << of.width;
      }
    }
    const WeightGradients<T> whole(of, nullptr, 1, as_they_are);
    const WeightGradients<T> parts(of, nullptr, 3, as_they_are);
    EXPECT_TRUE(same_bits(whole.winograd.data(), parts.winograd.data(), whole.winograd.size()));
  }
}

TYPED_TEST(Winograd, weight_gradient_is_exact_where_nothing_is_rounded) {
  using T = TypeParam;
  const auto whole = [](std::vector<T> numbers) {
    for (T& number : numbers) number = std::round(number * 4);
    return numbers;
  };
  for (const Case& of : {Case{9, 12, 1, 24, 24}, Case{13, 13, 0, 40, 7}, Case{17, 15, 2, 3, 30}}) {
    const WeightGradients<T> found(of, nullptr, 1, whole);
    EXPECT_EQ(found.winograd, found.direct);
  }
}

TEST(Winograd, suits_flat_kernels_of_3_by_3_that_do_enough) {
  const Windows windows = Case{28, 28, 1, 0, 0}.windows();
  EXPECT_TRUE(suits_winograd(windows, 32, 64));
  EXPECT_FALSE(suits_winograd(windows, 1, 64));
  EXPECT_FALSE(suits_winograd(windows, 32, 4));
  EXPECT_FALSE(suits_winograd(Case{7, 7, 1, 0, 0}.windows(), 32, 64));
  EXPECT_TRUE(suits_winograd_gradient(windows, 32, 64));
  EXPECT_FALSE(suits_winograd_gradient(windows, 32, 4));
  EXPECT_FALSE(suits_winograd_gradient(windows, 512, 64));
  for (const auto spoil :
       {+[](Windows& w) { w.vertical.stride = 2; }, +[](Windows& w) { w.horizontal.dilation = 2; },
        +[](Windows& w) { w.vertical.kernel = 5; }, +[](Windows& w) { w.horizontal.kernel = 1; },
        +[](Windows& w) { w.vertical.padding = -1; }, +[](Windows& w) { w.deep.extent = 3; },
        +[](Windows& w) { w.deep.kernel = 3, w.deep.padding = 1; }}) {
    Windows spoilt = windows;
    spoil(spoilt);
    EXPECT_FALSE(suits_winograd(spoilt, 32, 64));
  }
}

}  // namespace winograd_test
}  // namespace lockstep::kernels
