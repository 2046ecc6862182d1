#include "lockstep/core/threads.hpp"

#include <array>
#include <cstdint>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"
#include "tensor/convolve.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernel_fixture.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::kernels {
namespace tensor_threads_test {

using testing::draw;
using testing::same_bits;

template <class T>
class SharedWork : public testing::Kernels<T> {
 protected:
  ~SharedWork() override { set_threads(1); }

  // That compute() gives the same bits on any number of threads.
  template <class F>
  static void expect_same_bits(F compute) {
    set_threads(1);
    const std::vector<T> expected = compute();
    for (const int count : {2, 3, 5}) {
      set_threads(count);
      const std::vector<T> found = compute();
      ASSERT_EQ(found.size(), expected.size());
      ASSERT_TRUE(same_bits(found.data(), expected.data(), found.size())) << count << " threads";
    }
  }
};
using Floating = ::testing::Types<float, double>;
TYPED_TEST_SUITE(SharedWork, Floating);

TYPED_TEST(SharedWork, of_a_product_has_the_bits_of_one_thread) {
  using T = TypeParam;
  struct Sizes {
    std::int64_t m, n, k;
  };
  for (const auto& [m, n, k] : {Sizes{64, 512, 784}, Sizes{1000, 90, 300}, Sizes{7, 4000, 30},
                                Sizes{900, 5, 100}, Sizes{256, 33, 257}}) {
    for (const Transpose tb : {Transpose::no, Transpose::yes}) {
      const std::vector<T> a = draw<T>(m * k, 1), b = draw<T>(k * n, 2), c = draw<T>(m * n, 3);
      for (const bool accumulate : {false, true}) {
        this->expect_same_bits([&, m = m, n = n, k = k] {
          std::vector<T> result = c;
          gemm(Transpose::no, tb, m, n, k, a.data(), b.data(), result.data(), accumulate);
          return result;
        });
      }
    }
  }
}

TYPED_TEST(SharedWork, of_a_convolution_has_the_bits_of_one_thread) {
  using T = TypeParam;
  const auto flat = [](std::int64_t extent, std::int64_t kernel, std::int64_t stride) {
    const WindowAxis axis{.extent = extent, .kernel = kernel, .stride = stride, .padding = 1};
    return Windows{{}, axis, axis};
  };
  const Convolution cases[] = {
      {flat(14, 3, 1), 7, 32, 32, 1},   // by Winograd
      {flat(20, 5, 1), 3, 12, 13, 1},   // directly
      {flat(28, 3, 1), 6, 1, 32, 1},    // with a gradient of the weight by columns
      {flat(15, 3, 2), 8, 24, 20, 1},   // by columns
      {flat(16, 3, 1), 5, 12, 24, 12},  // in groups
      {flat(17, 3, 2), 9, 12, 24, 4}};
  for (const Convolution& of : cases) {
    const std::vector<T> x = draw<T>(of.samples * of.image(), 1), bias = draw<T>(of.maps, 3),
                         weight = draw<T>(of.maps * of.taps(), 2),
                         dy = draw<T>(of.samples * of.result(), 4);
    for (const Activation f : {Activation::none, Activation::relu}) {
      for (const bool accumulate : {false, true}) {
        this->expect_same_bits([&] {
          std::vector<T> y(dy.size()), dx = x, dw = weight, db = bias;
          convolve(of, x.data(), weight.data(), bias.data(), f, y.data());
          const std::array<GradientTarget<T>, 3> targets{
              {{dx.data(), accumulate}, {dw.data(), accumulate}, {db.data(), accumulate}}};
          convolve_backward(of, x.data(), weight.data(), y.data(), dy.data(), f, targets);
          for (const auto* numbers : {&dx, &dw, &db}) {
            y.insert(y.end(), numbers->begin(), numbers->end());
          }
          return y;
        });
      }
    }
  }
}

}  // namespace tensor_threads_test
}  // namespace lockstep::kernels
