#include "tensor/winograd.hpp"

#include <algorithm>
#include <utility>

#include "tensor/activations.hpp"
#include "tensor/gemm.hpp"
#include "tensor/vector_map.hpp"
#include "tensor/winograd_squares.hpp"

namespace lockstep::kernels {

using namespace winograd;

namespace {

template <class T>
Tensor memory(std::int64_t size) {
  return Tensor::zeros({size}, dtype_of<T>);
}

// Gᵀ · g of a column g, with G of the paper.
template <class T>
void transform_taps(const T* g, std::int64_t step, T* to, std::int64_t step_to) {
  const T ends = g[0] + g[2 * step];
  to[0] = g[0];
  to[step_to] = (ends + g[step]) / 2;
  to[2 * step_to] = (ends - g[step]) / 2;
  to[3 * step_to] = g[2 * step];
}

// Squares of a block: what is made of these stays in the second cache.
template <class T>
std::int64_t block_of(std::int64_t numbers_of_square) {
  constexpr std::int64_t most = (384 << 10) / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t sliver = tiles<T>().columns;
  return sliver * std::max<std::int64_t>(1, most / (numbers_of_square * sliver));
}

}  // namespace

bool suits_winograd(const Windows& windows, std::int64_t channels, std::int64_t maps) {
  for (const WindowAxis& axis : {windows.vertical, windows.horizontal}) {
    if (axis.kernel != 3 || axis.stride != 1 || axis.dilation != 1 || axis.padding < 0)
      return false;
  }
  return windows.deep.padded() == 1 && channels >= 24 && maps >= 24 && windows.count() >= 144;
}

// A padded image is cut into four phases, of even and odd rows and columns: the pixels of the square at place p are those at
// p, p + 1, p + width_ and p + width_ + 1 of the phases. What the last places of a row see is in the next one, and is not
// used.
template <class T>
WinogradConvolution<T>::WinogradConvolution(const Windows& windows, std::int64_t channels,
                                            std::int64_t maps)
    : windows_(windows),
      channels_(channels),
      maps_(maps),
      width_(halved(windows.horizontal.padded())),
      squares_(whole(halved(windows.vertical.count()) * width_, tiles<T>().columns)),
      block_(std::min(block_of<T>(products * (channels + maps)), squares_)),
      phase_(apart<T>(whole(squares_, block_) + 2 * width_ + width<T>)),
      image_product_(apart<T>(channels * block_)),
      map_product_(apart<T>(maps * block_)),
      phases_(memory<T>(channels * 4 * phase_)),
      image_(memory<T>(products * image_product_)),
      weight_(memory<T>(products * whole(maps, tiles<T>().rows) * channels)),
      products_(memory<T>(products * map_product_)),
      quarters_(memory<T>(maps * 4 * phase_)) {}

template <class T>
void WinogradConvolution<T>::set_weight(const T* weight) {
  const std::int64_t size = maps_ * channels_;
  const std::int64_t rows = whole(maps_, tiles<T>().rows);
  Tensor transformed = memory<T>(products * size);
  T* const to = transformed.data<T>();
  for (std::int64_t i = 0; i < size; ++i, weight += taps) {
    T columns[4 * 3];
    for (std::int64_t x = 0; x < 3; ++x) transform_taps(weight + x, 3, columns + x, 3);
    for (std::int64_t y = 0; y < 4; ++y) {
      transform_taps(columns + 3 * y, 1, to + 4 * y * size + i, size);
    }
  }
  for (std::int64_t product = 0; product < products; ++product) {
    pack_blocks(maps_, channels_, std::as_const(transformed).data<T>() + product * size,
                weight_.data<T>() + product * rows * channels_);
  }
}

template <class T>
void WinogradConvolution<T>::convolve(const T* image, const T* bias, Activation f, T* y) {
  multiply(image);
  const auto bias_of = [bias](std::int64_t map) {
    return bias != nullptr ? bias[map] : -T{0};  // which changes not even the sign of a zero
  };
  if (f == Activation::relu) {
    return join(y, [=](std::int64_t map) {
      return [b = bias_of(map)](T, T value) { return value + b < 0 ? T{0} : value + b; };
    });
  }
  join(y, [=](std::int64_t map) { return [b = bias_of(map)](T, T value) { return value + b; }; });
  activate(f, maps_ * windows_.count(), y, y);
}

template <class T>
void WinogradConvolution<T>::add_convolved(const T* image, T* y) {
  multiply(image);
  join(y, [](std::int64_t) { return [](T sum, T value) { return sum + value; }; });
}

template <class T>
void WinogradConvolution<T>::multiply(const T* image) {
  split(image);
  for (std::int64_t square = 0; square < squares_; square += block_) {
    transform_image(square);
    multiply_squares();
    transform_products(square);
  }
}

// The phases of all channels.
template <class T>
void WinogradConvolution<T>::split(const T* image) {
  const auto& [deep, vertical, horizontal] = windows_;
  const std::int64_t columns = horizontal.extent, before = horizontal.padding;
  for (std::int64_t channel = 0; channel < channels_; ++channel) {
    T* const phases = phases_.data<T>() + channel * 4 * phase_;
    for (std::int64_t y = 0; y < vertical.extent; ++y, image += columns) {
      const std::int64_t row = y + vertical.padding;
      T* const even = phases + row % 2 * 2 * phase_ + row / 2 * width_ + halved(before);
      T* const odd = phases + (row % 2 * 2 + 1) * phase_ + row / 2 * width_ + before / 2;
      T* const first = before % 2 == 0 ? even : odd;
      T* const second = before % 2 == 0 ? odd : even;
      for (std::int64_t i = 0; i < columns / 2; ++i) {
        first[i] = image[2 * i];
        second[i] = image[2 * i + 1];
      }
      if (columns % 2 == 1) first[columns / 2] = image[columns - 1];
    }
  }
}

// Bᵀ · d · B of the squares d of a block, of all channels.
template <class T>
void WinogradConvolution<T>::transform_image(std::int64_t square) {
  using V = Vector<T>;
  for (std::int64_t channel = 0; channel < channels_; ++channel) {
    const T* const phases = std::as_const(phases_).data<T>() + channel * 4 * phase_ + square;
    T* const to = image_.data<T>() + channel * block_;
    for (std::int64_t i = 0; i < block_; i += width<T>) {
      V d[4][4];
      for (int y = 0; y < 4; ++y) {
        for (int x = 0; x < 4; ++x) {
          d[y][x] = load<T>(phases + (y % 2 * 2 + x % 2) * phase_ + i + y / 2 * width_ + x / 2);
        }
      }
      for (int x = 0; x < 4; ++x) transform_pixels(d[0][x], d[1][x], d[2][x], d[3][x]);
      for (int y = 0; y < 4; ++y) {
        transform_pixels(d[y][0], d[y][1], d[y][2], d[y][3]);
        for (int x = 0; x < 4; ++x) store<T>(d[y][x], to + (4 * y + x) * image_product_ + i);
      }
    }
  }
}

template <class T>
void WinogradConvolution<T>::multiply_squares() {
  const std::int64_t sliver = tiles<T>().columns, longest = block_length(channels_);
  const std::int64_t rows = whole(maps_, tiles<T>().rows);
  const T* weight = std::as_const(weight_).data<T>();
  for (std::int64_t product = 0; product < products; ++product) {
    const T* const image = std::as_const(image_).data<T>() + product * image_product_;
    T* const to = products_.data<T>() + product * map_product_;
    for (std::int64_t l = 0; l < channels_; l += longest) {
      const std::int64_t depth = std::min(longest, channels_ - l);
      for (std::int64_t i = 0; i < block_; i += sliver) {
        tiles<T>().multiply(maps_, sliver, depth, weight, image + l * block_ + i, block_,
                            {to + i, block_, 1, l > 0});
      }
      weight += rows * depth;
    }
  }
}

// Aᵀ · m · A of the squares m of a block, of all maps, with A of the paper.
template <class T>
void WinogradConvolution<T>::transform_products(std::int64_t square) {
  using V = Vector<T>;
  for (std::int64_t map = 0; map < maps_; ++map) {
    const T* const from = std::as_const(products_).data<T>() + map * block_;
    T* const quarters = quarters_.data<T>() + map * 4 * phase_ + square;
    for (std::int64_t i = 0; i < block_; i += width<T>) {
      V sums[2][4];
      for (int x = 0; x < 4; ++x) {
        V m[4];
        for (int y = 0; y < 4; ++y) m[y] = load<T>(from + (4 * y + x) * map_product_ + i);
        sums[0][x] = m[0] + m[1] + m[2];
        sums[1][x] = m[1] - m[2] - m[3];
      }
      for (int y = 0; y < 2; ++y) {
        const V* const s = sums[y];
        store<T>(s[0] + s[1] + s[2], quarters + 2 * y * phase_ + i);
        store<T>(s[1] - s[2] - s[3], quarters + (2 * y + 1) * phase_ + i);
      }
    }
  }
}

// y = f(y, what the product is) of all windows, with f = of(map).
template <class T>
template <class Of>
void WinogradConvolution<T>::join(T* y, Of of) {
  const std::int64_t columns = windows_.horizontal.count(), rows = windows_.vertical.count();
  for (std::int64_t map = 0; map < maps_; ++map) {
    const auto f = of(map);
    const T* const quarters = std::as_const(quarters_).data<T>() + map * 4 * phase_;
    for (std::int64_t row = 0; row < rows; ++row, y += columns) {
      const T* const even = quarters + row % 2 * 2 * phase_ + row / 2 * width_;
      const T* const odd = even + phase_;
      for (std::int64_t i = 0; i < columns / 2; ++i) {
        y[2 * i] = f(y[2 * i], even[i]);
        y[2 * i + 1] = f(y[2 * i + 1], odd[i]);
      }
      if (columns % 2 == 1) y[columns - 1] = f(y[columns - 1], even[columns / 2]);
    }
  }
}

template class WinogradConvolution<float>;
template class WinogradConvolution<double>;

}  // namespace lockstep::kernels
