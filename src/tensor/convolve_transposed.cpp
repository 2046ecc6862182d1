#include <algorithm>

#include "tensor/activations.hpp"
#include "tensor/columns.hpp"

namespace lockstep::kernels {

template <class T>
void convolve_transposed(const Convolution& of, const T* x, const T* weight, const T* bias, T* y) {
  Columns<T> columns(of);
  for (std::int64_t sample = 0; sample < of.samples; ++sample, x += of.result(), y += of.image()) {
    columns.multiply_transposed(weight, x);
    columns.fold(y, false);
    if (bias != nullptr) {
      activate_columns(Activation::none, of.channels, of.windows.pixels(), bias, y);
    }
  }
}

// dx (+)= weight · columns of dy, dw (+)= the sum over samples of x · (columns of dy)ᵀ, db (+)= that over samples
// and pixels of dy.
template <class T>
void convolve_transposed_backward(const Convolution& of, const T* x, const T* weight, const T* dy,
                                  const std::array<GradientTarget<T>, 3>& targets) {
  const auto [dx, dw, db] = targets;
  Columns<T> columns(of);
  BiasGradient<T> bias(db, of.channels, of.windows.pixels());
  if (dw.data != nullptr && !dw.accumulate) std::fill_n(dw.data, of.maps * of.taps(), T{0});
  for (std::int64_t sample = 0; sample < of.samples; ++sample) {
    const T* g = dy + sample * of.image();
    bias.add(g);
    if (dx.data == nullptr && dw.data == nullptr) continue;
    columns.unfold(g);
    if (dx.data != nullptr) {
      columns.multiply(weight, dx.data + sample * of.result(), dx.accumulate);
    }
    if (dw.data != nullptr) columns.add_products(x + sample * of.result(), dw.data);
  }
  bias.store();
}

#define LOCKSTEP_INSTANTIATE(T)                                                                   \
  template void convolve_transposed<T>(const Convolution&, const T*, const T*, const T*, T*);     \
  template void convolve_transposed_backward<T>(const Convolution&, const T*, const T*, const T*, \
                                                const std::array<GradientTarget<T>, 3>&);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
