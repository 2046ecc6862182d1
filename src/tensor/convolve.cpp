#include "tensor/convolve.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "lockstep/tensor/tensor.hpp"
#include "tensor/convolution.hpp"
#include "tensor/direct_convolution.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernels.hpp"

namespace lockstep::kernels {
namespace {

// The columns of one image of a convolution, and the products with them.
template <class T>
class Columns {
 public:
  explicit Columns(const Convolution& of)
      : of_(of),
        columns_(Tensor::empty({Shape{of.groups * of.taps(), of.windows.count()}.size() + slack},
                               dtype_of<T>)),
        padded_(Tensor::zeros({Shape{of.channels, of.windows.padded_pixels()}.size() + slack},
                              dtype_of<T>)) {}

  // Takes those of an image. Only fold() spoils the padding for that.
  void unfold(const T* image) {
    pad(of_.windows, of_.channels, image, padded_.data<T>());
    im2col(of_.windows, of_.channels, std::as_const(padded_).data<T>(), columns_.data<T>());
  }
  // image (+)= what the columns come from.
  void fold(T* image, bool accumulate) {
    padded_.fill(0);
    col2im(of_.windows, of_.channels, std::as_const(columns_).data<T>(), padded_.data<T>());
    crop(of_.windows, of_.channels, std::as_const(padded_).data<T>(), image, accumulate);
  }

  // result (+)= weight · columns
  void multiply(const T* weight, T* result, bool accumulate) {
    for_each_group(weight, result, [&](const T* w, T* columns, T* r) {
      gemm(Transpose::no, Transpose::no, maps(), of_.windows.count(), of_.taps(), w,
           std::as_const(columns), r, accumulate);
    });
  }
  // columns = weightᵀ · result
  void multiply_transposed(const T* weight, const T* result) {
    for_each_group(weight, result, [&](const T* w, T* columns, const T* r) {
      gemm(Transpose::yes, Transpose::no, of_.taps(), of_.windows.count(), maps(), w, r, columns,
           false);
    });
  }
  // weight += result · columnsᵀ
  void add_products(const T* result, T* weight) {
    for_each_group(weight, result, [&](T* w, T* columns, const T* r) {
      gemm(Transpose::no, Transpose::yes, maps(), of_.taps(), of_.windows.count(), r,
           std::as_const(columns), w, true);
    });
  }

 private:
  std::int64_t maps() const { return of_.maps / of_.groups; }

  template <class Weight, class Result, class F>
  void for_each_group(Weight* weight, Result* result, F f) {
    T* columns = columns_.data<T>();
    for (std::int64_t group = 0; group < of_.groups; ++group) {
      f(weight, columns, result);
      weight += maps() * of_.taps();
      columns += of_.taps() * of_.windows.count();
      result += maps() * of_.windows.count();
    }
  }

  const Convolution& of_;
  Tensor columns_, padded_;
};

// bias[map] (+)= the sum of each map over samples and windows.
template <class T>
class BiasGradient {
 public:
  BiasGradient(GradientTarget<T> target, std::int64_t maps, std::int64_t count)
      : target_(target),
        sums_(target.data == nullptr ? 0 : static_cast<std::size_t>(maps)),
        count_(count) {
    if (target.accumulate) std::copy_n(target.data, sums_.size(), sums_.begin());
  }
  void add(const T* maps) {
    for (double& of_map : sums_) {
      of_map += sum(count_, maps);
      maps += count_;
    }
  }
  void store() const {
    std::transform(sums_.begin(), sums_.end(), target_.data,
                   [](double of_map) { return static_cast<T>(of_map); });
  }

 private:
  GradientTarget<T> target_;
  std::vector<double> sums_;
  std::int64_t count_;  // of the numbers of a map
};

bool is_direct(const Convolution& of) {
  return of.groups == 1 && of.channels > 0 && of.maps > 0 && suits_direct(of.windows);
}

// dw (+)= the sum over samples of dz · (columns of x)ᵀ, of one sample after another.
template <class T>
class WeightGradient {
 public:
  WeightGradient(const Convolution& of, GradientTarget<T> target) : of_(of), target_(target) {
    if (target.data == nullptr) return;
    if (is_direct(of) && DirectWeightGradient<T>::suits(of.channels)) {
      direct_.emplace(of.windows, of.channels, of.maps);
      if (target.accumulate) direct_->begin_with(target.data);
    } else {
      columns_.emplace(of);
      if (!target.accumulate) std::fill_n(target.data, of.maps * of.taps(), T{0});
    }
  }
  void add(const T* x, const T* dz) {
    if (direct_) direct_->add(x, dz);
    if (!columns_) return;
    columns_->unfold(x);
    columns_->add_products(dz, target_.data);
  }
  void store() const {
    if (direct_) direct_->store(target_.data);
  }

 private:
  const Convolution& of_;
  GradientTarget<T> target_;
  std::optional<DirectWeightGradient<T>> direct_;
  std::optional<Columns<T>> columns_;
};

// dx (+)= the images of weightᵀ · dz, of one sample after another.
template <class T>
class ImageGradient {
 public:
  ImageGradient(const Convolution& of, GradientTarget<T> target, const T* weight)
      : of_(of), target_(target), weight_(weight) {
    if (target.data == nullptr) return;
    const Windows turned = adjoint(of.windows);
    if (is_direct(of) && suits_direct(turned)) {
      direct_.emplace(turned, of.maps, of.channels);
      direct_->set_adjoint_weight(weight);
    } else {
      columns_.emplace(of);
    }
  }
  void add(std::int64_t sample, const T* dz) {
    if (target_.data == nullptr) return;
    T* const dx = target_.data + sample * of_.image();
    if (direct_) {
      if (target_.accumulate) {
        direct_->add_convolved(dz, dx);
      } else {
        direct_->convolve(dz, nullptr, Activation::none, dx);
      }
    }
    if (!columns_) return;
    columns_->multiply_transposed(weight_, dz);
    columns_->fold(dx, target_.accumulate);
  }

 private:
  const Convolution& of_;
  GradientTarget<T> target_;
  const T* weight_;
  std::optional<DirectConvolution<T>> direct_;
  std::optional<Columns<T>> columns_;
};

}  // namespace

template <class T>
void convolve(const Convolution& of, const T* x, const T* weight, const T* bias, Activation f,
              T* y) {
  if (is_direct(of)) {
    DirectConvolution<T> direct(of.windows, of.channels, of.maps);
    direct.set_weight(weight);
    for (std::int64_t sample = 0; sample < of.samples; ++sample) {
      direct.convolve(x + sample * of.image(), bias, f, y + sample * of.result());
    }
    return;
  }
  Columns<T> columns(of);
  for (std::int64_t sample = 0; sample < of.samples; ++sample, x += of.image(), y += of.result()) {
    columns.unfold(x);
    columns.multiply(weight, y, false);
    if (bias != nullptr) {
      activate_columns(f, of.maps, of.windows.count(), bias, y);
    } else {
      activate(f, of.result(), y, y);
    }
  }
}

template <class T>
void convolve_backward(const Convolution& of, const T* x, const T* weight, const T* y, const T* dy,
                       Activation f, const std::array<GradientTarget<T>, 3>& targets) {
  ImageGradient<T> images(of, targets[0], weight);
  WeightGradient<T> weights(of, targets[1]);
  BiasGradient<T> bias(targets[2], of.maps, of.windows.count());
  Tensor dz = Tensor::empty({f == Activation::none ? 0 : of.result()}, dtype_of<T>);
  for (std::int64_t sample = 0; sample < of.samples; ++sample) {
    const T* g = dy + sample * of.result();
    if (f != Activation::none) {
      activation_gradient(f, of.result(), y + sample * of.result(), g, dz.data<T>(), false);
      g = dz.data<T>();
    }
    bias.add(g);
    weights.add(x + sample * of.image(), g);
    images.add(sample, g);
  }
  weights.store();
  bias.store();
}

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
  template void convolve<T>(const Convolution&, const T*, const T*, const T*, Activation, T*);    \
  template void convolve_backward<T>(const Convolution&, const T*, const T*, const T*, const T*,  \
                                     Activation, const std::array<GradientTarget<T>, 3>&);        \
  template void convolve_transposed<T>(const Convolution&, const T*, const T*, const T*, T*);     \
  template void convolve_transposed_backward<T>(const Convolution&, const T*, const T*, const T*, \
                                                const std::array<GradientTarget<T>, 3>&);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
