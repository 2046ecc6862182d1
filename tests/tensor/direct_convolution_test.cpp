#include "tensor/direct_convolution.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/activations.hpp"
#include "tensor/convolution.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernel_fixture.hpp"
#include "tensor/kernels.hpp"
#include "tensor/phased_gradient.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::kernels {
namespace direct_convolution_test {

using testing::draw;
using testing::same_bits;

template <class T>
class Direct : public testing::Kernels<T> {};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Direct, Floating);

struct Case {
  Windows windows;
  std::int64_t channels, maps;
};

// Of flat images, lines and volumes, with channels and maps that fill vectors and tiles or do not.
std::vector<Case> cases() {
  return {
      {{{}, {}, {}}, 1, 1},
      {{{}, {}, {.extent = 40, .kernel = 5}}, 3, 2},
      {{{}, {}, {.extent = 70, .kernel = 3, .padding = 2, .dilation = 2}}, 33, 13},
      {{{}, {.extent = 5}, {.extent = 7}}, 20, 12},
      {{{}, {.extent = 14, .kernel = 3, .padding = 1}, {.extent = 14, .kernel = 3, .padding = 1}},
       32,
       24},
      {{{}, {.extent = 28, .kernel = 3, .padding = 1}, {.extent = 28, .kernel = 3, .padding = 1}},
       1,
       32},
      {{{}, {.extent = 9, .kernel = 2}, {.extent = 31, .kernel = 5, .padding = 4}}, 8, 5},
      {{{}, {.extent = 12, .kernel = 3, .padding = 3, .dilation = 3}, {.extent = 20, .kernel = 3}},
       70,
       3},
      {{{.extent = 9, .kernel = 2},
        {.extent = 17, .kernel = 3, .padding = 1},
        {.extent = 21, .kernel = 2, .padding = 1}},
       16,
       7},
      {{{.extent = 12, .kernel = 3, .padding = 1}, {.extent = 16}, {.extent = 16}}, 40, 40},
  };
}

// With strides, also where there are pixels that no window sees, and strides further than kernels reach.
std::vector<Case> strided() {
  const WindowAxis halved{.extent = 28, .kernel = 3, .stride = 2, .padding = 1};
  return {
      {{{}, halved, halved}, 20, 30},
      {{{}, {.extent = 15, .kernel = 1, .stride = 2}, {.extent = 14, .kernel = 1, .stride = 2}},
       12,
       9},
      {{{}, {}, {.extent = 90, .kernel = 7, .stride = 3, .padding = 3, .dilation = 2}}, 5, 13},
      {{{},
        {.extent = 21, .kernel = 5, .stride = 4, .padding = 2, .dilation = 2},
        {.extent = 40, .kernel = 4, .stride = 2, .padding = 3, .dilation = 3}},
       3,
       2},
      {{{.extent = 9, .kernel = 2, .stride = 2},
        {.extent = 17, .kernel = 3, .stride = 1, .padding = 1},
        {.extent = 40, .kernel = 2, .stride = 3, .padding = 1}},
       6,
       7},
  };
}

// A convolution by the matrix of columns of its image.
template <class T>
struct ByColumns {
  explicit ByColumns(const Case& of)
      : windows(of.windows),
        channels(of.channels),
        maps(of.maps),
        taps(of.channels * of.windows.taps()),
        padded(static_cast<std::size_t>(of.channels * of.windows.padded_pixels() + slack)),
        columns(static_cast<std::size_t>(taps * of.windows.count() + slack)) {}

  void unfold(const T* image) {
    pad(windows, channels, image, padded.data());
    im2col(windows, channels, std::as_const(padded).data(), columns.data());
  }
  std::vector<T> multiply(const std::vector<T>& weight) {
    std::vector<T> y(static_cast<std::size_t>(maps * windows.count()));
    gemm(Transpose::no, Transpose::no, maps, windows.count(), taps, weight.data(),
         std::as_const(columns).data(), y.data(), false);
    return y;
  }

  void add_image_gradient(const std::vector<T>& weight, const std::vector<T>& dz,
                          std::vector<T>& dx) {
    gemm(Transpose::yes, Transpose::no, taps, windows.count(), maps, weight.data(), dz.data(),
         columns.data(), false);
    std::fill(padded.begin(), padded.end(), T{0});
    col2im(windows, channels, std::as_const(columns).data(), padded.data());
    crop(windows, channels, std::as_const(padded).data(), dx.data(), true);
  }

  Windows windows;
  std::int64_t channels, maps, taps;
  std::vector<T> padded, columns;
};

TYPED_TEST(Direct, convolution_has_the_bits_of_columns) {
  using T = TypeParam;
  std::vector<Case> all = strided();
  for (const Case& of : cases()) all.push_back(of);
  for (const Case& of : all) {
    ASSERT_TRUE(suits_direct(of.windows) || !of.windows.strideless());
    ByColumns<T> plain(of);
    DirectConvolution<T> direct(of.windows, of.channels, of.maps);
    const std::vector<T> weight = draw<T>(of.maps * plain.taps, 1), bias = draw<T>(of.maps, 2);
    direct.set_weight(weight.data());
    for (std::uint64_t sample = 0; sample < 2; ++sample) {
      const std::vector<T> image = draw<T>(of.channels * of.windows.pixels(), 3 + sample);
      for (const Activation f : {Activation::none, Activation::relu, Activation::tanh}) {
        plain.unfold(image.data());
        std::vector<T> expected = plain.multiply(weight),
                       found = draw<T>(of.maps * of.windows.count(), 9);
        activate_columns(f, of.maps, of.windows.count(), bias.data(), expected.data());
        direct.convolve(image.data(), bias.data(), f, found.data());
        ASSERT_TRUE(same_bits(expected.data(), found.data(), found.size()));
      }
      std::vector<T> expected = draw<T>(of.maps * of.windows.count(), 9), found = expected;
      add_scaled(of.maps * of.windows.count(), T{1}, plain.multiply(weight).data(),
                 expected.data());
      direct.add_convolved(image.data(), found.data());
      ASSERT_TRUE(same_bits(expected.data(), found.data(), found.size()));
    }
  }
}

TYPED_TEST(Direct, weight_gradient_has_the_bits_of_columns) {
  using T = TypeParam;
  std::vector<Case> all = cases();
  const WindowAxis strided{.extent = 15, .kernel = 3, .stride = 2, .padding = 1};
  all.push_back({{{}, strided, strided}, 32, 20});
  all.push_back({{strided, {.extent = 8, .kernel = 5, .stride = 3, .padding = 2}, strided}, 9, 5});
  all.push_back({{{}, {}, {.extent = 14, .kernel = 9, .dilation = 1}}, 40, 3});
  for (const Case& of : all) {
    for (const bool accumulate : {false, true}) {
      ByColumns<T> plain(of);
      DirectWeightGradient<T> direct(of.windows, of.channels, of.maps);
      std::vector<T> expected = draw<T>(of.maps * plain.taps, 1), found = expected;
      if (accumulate) {
        direct.begin_with(found.data());
      } else {
        std::fill(expected.begin(), expected.end(), T{0});
      }
      for (std::uint64_t sample = 0; sample < 3; ++sample) {
        const std::vector<T> image = draw<T>(of.channels * of.windows.pixels(), 3 + sample);
        const std::vector<T> dz = draw<T>(of.maps * of.windows.count(), 6 + sample);
        plain.unfold(image.data());
        gemm(Transpose::no, Transpose::yes, of.maps, plain.taps, of.windows.count(), dz.data(),
             std::as_const(plain.columns).data(), expected.data(), true);
        direct.add(image.data(), dz.data());
      }
      direct.store(found.data());
      ASSERT_TRUE(same_bits(expected.data(), found.data(), found.size()));
    }
  }
}

// The adjoint adds up in another order: (maps · taps) products, each rounded once and added.
TYPED_TEST(Direct, image_gradient_is_that_of_columns) {
  using T = TypeParam;
  int tried = 0;
  for (const Case& of : cases()) {
    const Windows turned = adjoint(of.windows);
    if (!suits_direct(turned)) continue;
    ++tried;
    ByColumns<T> plain(of);
    DirectConvolution<T> direct(turned, of.maps, of.channels);
    const std::vector<T> weight = draw<T>(of.maps * plain.taps, 1),
                         dz = draw<T>(of.maps * of.windows.count(), 2);
    std::vector<T> of_adjoint(weight.size());
    turn_weight(of.maps, of.channels, of.windows.taps(), weight.data(), of_adjoint.data());
    direct.set_weight(of_adjoint.data());
    std::vector<T> expected = draw<T>(of.channels * of.windows.pixels(), 3), found = expected;
    plain.add_image_gradient(weight, dz, expected);
    direct.add_convolved(dz.data(), found.data());
    const double products = static_cast<double>(of.maps * of.windows.taps());
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(found[i]), static_cast<double>(expected[i]),
                  this->epsilon * (products + 1));
    }
  }
  EXPECT_GE(tried, 8);
}

TYPED_TEST(Direct, image_gradient_of_strides_is_that_of_columns) {
  using T = TypeParam;
  std::vector<Case> all = strided();
  for (const Case& of : cases()) all.push_back(of);
  for (const Case& of : all) {
    ByColumns<T> plain(of);
    PhasedImageGradient<T> phased(of.windows, of.channels, of.maps);
    const std::vector<T> weight = draw<T>(of.maps * plain.taps, 1);
    phased.set_weight(weight.data());
    for (const bool accumulate : {false, true}) {
      const std::vector<T> dz = draw<T>(of.maps * of.windows.count(), accumulate ? 2 : 3);
      std::vector<T> found = draw<T>(of.channels * of.windows.pixels(), 4), expected = found;
      if (!accumulate) std::fill(expected.begin(), expected.end(), T{0});
      plain.add_image_gradient(weight, dz, expected);
      phased.add(dz.data(), found.data(), accumulate);
      const double products = static_cast<double>(of.maps * of.windows.taps());
      for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(static_cast<double>(found[i]), static_cast<double>(expected[i]),
                    this->epsilon * (products + 1));
      }
    }
  }
}

TYPED_TEST(Direct, convolution_lets_nan_and_infinity_through_where_a_window_sees_them_alone) {
  using T = TypeParam;
  const Case of{
      {{}, {.extent = 6, .kernel = 3, .padding = 1}, {.extent = 40, .kernel = 3, .padding = 1}},
      2,
      3};
  DirectConvolution<T> direct(of.windows, of.channels, of.maps);
  const std::vector<T> weight(54, T{1});
  direct.set_weight(weight.data());
  std::vector<T> image(2 * 240, T{1}), y(3 * 240);
  image[39] = this->infinity;    // at the end of the first row
  image[240 + 239] = this->nan;  // the last pixel
  direct.convolve(image.data(), nullptr, Activation::none, y.data());
  for (std::int64_t map = 0; map < of.maps; ++map) {
    for (std::int64_t row = 0; row < 6; ++row) {
      for (std::int64_t column = 0; column < 40; ++column) {
        const T found = y[static_cast<std::size_t>(map * 240 + row * 40 + column)];
        if (row >= 4 && column >= 38) {
          EXPECT_TRUE(std::isnan(found));
        } else if (row <= 1 && column >= 38) {
          EXPECT_EQ(found, this->infinity);
        } else {
          EXPECT_TRUE(std::isfinite(found)) << row << ' ' << column;
        }
      }
    }
  }
}

TYPED_TEST(Direct, convolution_without_a_bias_keeps_the_sign_of_a_zero) {
  using T = TypeParam;
  const Windows windows{{}, {}, {.extent = 40}};
  DirectConvolution<T> direct(windows, 1, 1);
  const T weight = -std::numeric_limits<T>::min();
  direct.set_weight(&weight);
  const std::vector<T> image(40, std::numeric_limits<T>::min());  // so that products vanish
  std::vector<T> y(40, T{1});
  direct.convolve(image.data(), nullptr, Activation::none, y.data());
  for (const T found : y) {
    EXPECT_EQ(found, T{0});
    EXPECT_TRUE(std::signbit(found));
  }
}

TEST(Direct, suits_images_that_are_wide_enough) {
  const auto flat = [](const WindowAxis& axis) { return Windows{{}, axis, axis}; };
  EXPECT_TRUE(suits_direct(flat({.extent = 14, .kernel = 3, .padding = 1})));
  EXPECT_TRUE(suits_direct(flat({.extent = 14, .kernel = 3, .stride = 2, .padding = 1})));
  EXPECT_FALSE(suits_direct(flat({.extent = 14, .kernel = 9})));
  EXPECT_FALSE(suits_direct(flat({.extent = 14, .stride = std::int64_t{1} << 62})));
  EXPECT_FALSE(suits_direct(flat({.extent = 16, .kernel = 12, .stride = 2})));
  EXPECT_FALSE(suits_direct(flat({.extent = 14, .kernel = 1, .padding = -1})));
}

}  // namespace direct_convolution_test
}  // namespace lockstep::kernels
