#include "tensor/single_convolution.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/direct_convolution.hpp"
#include "tensor/kernel_fixture.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::kernels {
namespace single_convolution_test {

using testing::draw;

template <class T>
class Single : public testing::Kernels<T> {};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Single, Floating);

// Of lines, flat images and volumes, with rows shorter and longer than vectors.
const Windows cases[] = {
    {{}, {}, {}},
    {{}, {}, {.extent = 3}},
    {{}, {}, {.extent = 40, .kernel = 5}},
    {{}, {}, {.extent = 70, .kernel = 3, .padding = 2, .dilation = 2}},
    {{}, {.extent = 28, .kernel = 3, .padding = 1}, {.extent = 28, .kernel = 3, .padding = 1}},
    {{}, {.extent = 9, .kernel = 2}, {.extent = 35, .kernel = 5, .padding = 4}},
    {{.extent = 6, .kernel = 2}, {.extent = 7, .kernel = 3, .padding = 1}, {.extent = 18}},
};

// Of numbers that round() makes.
template <class T>
struct Draw {
  std::vector<T> weight, image, dz, result, gradient;

  Draw(const Windows& of, auto round)
      : weight(round(draw<T>(of.taps(), 1))),
        image(round(draw<T>(of.pixels(), 2))),
        dz(round(draw<T>(of.count(), 3))),
        result(round(draw<T>(of.count(), 4))),
        gradient(round(draw<T>(of.taps(), 5))) {}
};

// Compares each result with that of the kernels for several channels, by equal(expected, found, sums of so many products).
template <class T>
void compare(auto round, auto equal) {
  for (const Windows& windows : cases) {
    const Draw<T> drawn(windows, round);
    DirectConvolution<T> direct(windows, 1, 1);
    SingleConvolution<T> single(windows);
    direct.set_weight(drawn.weight.data());
    single.set_weight(drawn.weight.data());
    for (const Activation f : {Activation::none, Activation::relu, Activation::tanh}) {
      for (const T* bias : {drawn.dz.data(), static_cast<const T*>(nullptr)}) {
        std::vector<T> expected = drawn.result, found = drawn.result;
        direct.convolve(drawn.image.data(), bias, f, expected.data());
        single.convolve(drawn.image.data(), bias, f, found.data());
        equal(expected, found, windows.taps());
      }
    }
    std::vector<T> expected = drawn.result, found = drawn.result;
    direct.add_convolved(drawn.image.data(), expected.data());
    single.add_convolved(drawn.image.data(), found.data());
    equal(expected, found, windows.taps());

    expected = found = drawn.gradient;
    DirectWeightGradient<T> of_direct(windows, 1, 1);
    of_direct.begin_with(expected.data());
    of_direct.add(drawn.image.data(), drawn.dz.data());
    of_direct.store(expected.data());
    single.add_weight_gradient(drawn.image.data(), drawn.dz.data(), found.data());
    equal(expected, found, windows.count());
  }
}

TYPED_TEST(Single, is_what_the_kernels_for_channels_give) {
  using T = TypeParam;
  compare<T>(
      [](std::vector<T> numbers) { return numbers; },
      [](const std::vector<T>& expected, const std::vector<T>& found, std::int64_t products) {
        // Each is rounded once more, and at most 1.
        const double most = 4 * static_cast<double>(products) *
                            static_cast<double>(std::numeric_limits<T>::epsilon());
        for (std::size_t i = 0; i < found.size(); ++i) {
          ASSERT_NEAR(found[i], expected[i], most);
        }
      });
}

TYPED_TEST(Single, is_exact_where_nothing_is_rounded) {
  using T = TypeParam;
  compare<T>(
      [](std::vector<T> numbers) {
        for (T& number : numbers) number = std::round(number * 4);
        return numbers;
      },
      [](const std::vector<T>& expected, const std::vector<T>& found, std::int64_t) {
        EXPECT_EQ(found, expected);
      });
}

}  // namespace single_convolution_test
}  // namespace lockstep::kernels
