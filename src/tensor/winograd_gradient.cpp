#include <algorithm>
#include <utility>

#include "tensor/convolution.hpp"
#include "tensor/gemm.hpp"
#include "tensor/vector_map.hpp"
#include "tensor/winograd.hpp"
#include "tensor/winograd_squares.hpp"

namespace lockstep::kernels {

using namespace winograd;

namespace {

// At a time. Not by the number of maps, of which a thread has some only: sums of blocks are rounded.
constexpr std::int64_t most_squares = 64;

// G · u of a row u, with G of the paper.
template <class T>
void combine_products(const T* u, std::int64_t step, T* g, std::int64_t step_to) {
  const T sum = (u[step] + u[2 * step]) / 2;
  g[0] = u[0] + sum;
  g[step_to] = (u[step] - u[2 * step]) / 2;
  g[2 * step_to] = sum + u[3 * step];
}

}  // namespace

bool suits_winograd_gradient(const Windows& windows, std::int64_t channels, std::int64_t maps) {
  return suits_winograd(windows, channels, maps) && channels * maps <= 128 * 128;
}

template <class T>
WinogradWeightGradient<T>::WinogradWeightGradient(const Windows& windows, std::int64_t channels,
                                                  std::int64_t maps)
    : windows_(windows),
      channels_(channels),
      maps_(maps),
      channel_lanes_(whole(channels, tiles<T>().columns)),
      map_lanes_(whole(maps, tiles<T>().columns)),
      width_(halved(windows.horizontal.count())),
      squares_(halved(windows.vertical.count()) * width_),
      block_(std::min(most_squares, squares_)),
      pixel_product_(apart<T>(block_ * tiles<T>().columns)),
      map_product_(apart<T>(block_ * map_lanes_)),
      // The last square may reach a row and a column further than the image.
      sliver_((windows.padded_pixels() + windows.horizontal.padded() + 1) * tiles<T>().columns),
      padded_(Tensor::zeros({channels * windows.padded_pixels()}, dtype_of<T>)),
      image_(Tensor::zeros({channel_lanes_ / tiles<T>().columns * sliver_}, dtype_of<T>)),
      gradient_(Tensor::zeros({map_lanes_ * windows.count()}, dtype_of<T>)),
      pixels_(Tensor::empty({products * pixel_product_}, dtype_of<T>)),
      gradients_(Tensor::empty({products * map_product_}, dtype_of<T>)),
      sums_(Tensor::zeros({products * maps * channel_lanes_}, dtype_of<T>)) {}

template <class T>
void WinogradWeightGradient<T>::add(const T* image, const T* dz) {
  const std::int64_t lanes = tiles<T>().columns, windows = windows_.count();
  const std::int64_t pixels = windows_.padded_pixels();
  pad(windows_, channels_, image, padded_.data<T>());
  for (std::int64_t channel = 0; channel < channels_; channel += lanes) {
    tiles<T>().pack_columns({std::as_const(padded_).data<T>() + channel * pixels, pixels, true},
                            std::min(lanes, channels_ - channel), pixels,
                            image_.data<T>() + channel / lanes * sliver_);
  }
  tiles<T>().pack_columns({dz, windows, true}, maps_, windows, gradient_.data<T>());

  for (std::int64_t first = 0; first < squares_; first += block_) {
    const std::int64_t count = std::min(block_, squares_ - first);
    transform_gradients(first, count);
    for (std::int64_t channel = 0; channel < channels_; channel += lanes) {
      transform_pixels_of(first, count,
                          std::as_const(image_).data<T>() + channel / lanes * sliver_);
      const std::int64_t taken = channels_ - channel > lanes / 2 ? lanes : lanes / 2;
      for (std::int64_t product = 0; product < products; ++product) {
        tiles<T>().multiply_in_place(
            maps_, taken, count,
            {std::as_const(gradients_).data<T>() + product * map_product_, map_lanes_, false},
            std::as_const(pixels_).data<T>() + product * pixel_product_, lanes,
            {sums_.data<T>() + product * maps_ * channel_lanes_ + channel, channel_lanes_, 1,
             true});
      }
    }
  }
}

// Bᵀ · d · B of the squares d of a block, of one sliver.
template <class T>
void WinogradWeightGradient<T>::transform_pixels_of(std::int64_t first, std::int64_t count,
                                                    const T* pixels) {
  using V = Vector<T>;
  const std::int64_t lanes = tiles<T>().columns, row = windows_.horizontal.padded() * lanes;
  for (std::int64_t square = 0; square < count; ++square) {
    const std::int64_t y = (first + square) / width_, x = (first + square) % width_;
    const T* const from = pixels + 2 * y * row + 2 * x * lanes;
    T* const to = pixels_.data<T>() + square * lanes;
    for (std::int64_t lane = 0; lane < lanes; lane += width<T>) {
      V d[4][4];
      for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 4; ++i) d[j][i] = load<T>(from + j * row + i * lanes + lane);
      }
      for (int i = 0; i < 4; ++i) transform_pixels(d[0][i], d[1][i], d[2][i], d[3][i]);
      for (int j = 0; j < 4; ++j) {
        transform_pixels(d[j][0], d[j][1], d[j][2], d[j][3]);
        for (int i = 0; i < 4; ++i) {
          kernels::store<T>(d[j][i], to + (4 * j + i) * pixel_product_ + lane);
        }
      }
    }
  }
}

// A · dz · Aᵀ of the 2 × 2 windows of the squares of a block, of all maps. Windows that there are none of are 0.
template <class T>
void WinogradWeightGradient<T>::transform_gradients(std::int64_t first, std::int64_t count) {
  using V = Vector<T>;
  const std::int64_t lanes = tiles<T>().columns, windows = windows_.count();
  const std::int64_t columns = windows_.horizontal.count(), rows = windows_.vertical.count();
  for (std::int64_t square = 0; square < count; ++square) {
    const std::int64_t y = 2 * ((first + square) / width_), x = 2 * ((first + square) % width_);
    T* const to = gradients_.data<T>() + square * map_lanes_;
    for (std::int64_t lane = 0; lane < map_lanes_; lane += width<T>) {
      const T* const from = std::as_const(gradient_).data<T>() + lane / lanes * lanes * windows +
                            (y * columns + x) * lanes + lane % lanes;
      const auto window = [&](int j, int i) {
        return y + j < rows && x + i < columns ? load<T>(from + (j * columns + i) * lanes) : V{};
      };
      const auto spread = [](V a, V b, V* out) {
        out[0] = a, out[1] = a + b, out[2] = a - b, out[3] = -b;
      };
      V upper[4], lower[4];
      spread(window(0, 0), window(0, 1), upper);
      spread(window(1, 0), window(1, 1), lower);
      for (int i = 0; i < 4; ++i) {
        V column[4];
        spread(upper[i], lower[i], column);
        for (int j = 0; j < 4; ++j) {
          kernels::store<T>(column[j], to + (4 * j + i) * map_product_ + lane);
        }
      }
    }
  }
}

template <class T>
void WinogradWeightGradient<T>::store(T* dw, bool accumulate) const {
  const std::int64_t size = maps_ * channel_lanes_;
  for (std::int64_t map = 0; map < maps_; ++map) {
    for (std::int64_t channel = 0; channel < channels_; ++channel, dw += taps) {
      const T* const sums = sums_.data<T>() + map * channel_lanes_ + channel;
      T rows[3 * 4], of_taps[taps];
      for (std::int64_t i = 0; i < 4; ++i) {
        combine_products(sums + i * size, 4 * size, rows + i, 4);
      }
      for (std::int64_t j = 0; j < 3; ++j) combine_products(rows + 4 * j, 1, of_taps + 3 * j, 1);
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        dw[tap] = accumulate ? dw[tap] + of_taps[tap] : of_taps[tap];
      }
    }
  }
}

template class WinogradWeightGradient<float>;
template class WinogradWeightGradient<double>;

}  // namespace lockstep::kernels
