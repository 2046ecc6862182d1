#include "tensor/convolve.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "core/parallel_for.hpp"
#include "lockstep/core/threads.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "tensor/activations.hpp"
#include "tensor/convolution.hpp"
#include "tensor/direct_convolution.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernels.hpp"
#include "tensor/winograd.hpp"

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

  Convolution of_;
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
  return of.channels > 0 && of.maps > 0 && suits_direct(of.windows);
}

// Where the numbers of a group begin.
struct Group {
  std::int64_t first_map, weight, image, result;

  Group(const Convolution& of, std::int64_t group)
      : first_map(group * (of.maps / of.groups)),
        weight(first_map * of.taps()),
        image(group * (of.channels / of.groups) * of.windows.pixels()),
        result(first_map * of.windows.count()) {}
};

// Convolutions with stride 1, by what is the fastest for them.
template <class T>
class Strideless {
 public:
  Strideless(const Windows& windows, std::int64_t channels, std::int64_t maps) {
    if (suits_winograd(windows, channels, maps)) {
      winograd_.emplace(windows, channels, maps);
    } else {
      direct_.emplace(windows, channels, maps);
    }
  }
  // f(a DirectConvolution or a WinogradConvolution), which have the same interface.
  template <class F>
  void with(F f) {
    if (winograd_) return f(*winograd_);
    f(*direct_);
  }

 private:
  std::optional<WinogradConvolution<T>> winograd_;
  std::optional<DirectConvolution<T>> direct_;
};

// dw (+)= the sum over samples of dz · (columns of x)ᵀ, of one sample after another, and of some of the maps.
template <class T>
class WeightGradient {
 public:
  WeightGradient(Convolution of, GradientTarget<T> target, std::int64_t first_map,
                 std::int64_t maps)
      : of_(of), target_(target), first_(first_map * of.windows.count()) {
    if (target.data == nullptr) return;
    target_.data += first_map * of.taps();
    of_.maps = maps;
    if (of.groups == 1 && maps > 0 && DirectWeightGradient<T>::suits(of.channels)) {
      direct_.emplace(of.windows, of.channels, maps);
      if (target.accumulate) direct_->begin_with(target_.data);
    } else {
      columns_.emplace(of_);
      if (!target.accumulate) std::fill_n(target_.data, maps * of.taps(), T{0});
    }
  }
  void add(const T* x, const T* dz_of_all) {
    const T* const dz = dz_of_all + first_;
    if (direct_) direct_->add(x, dz);
    if (!columns_) return;
    columns_->unfold(x);
    columns_->add_products(dz, target_.data);
  }
  void store() const {
    if (direct_) direct_->store(target_.data);
  }

 private:
  Convolution of_;
  GradientTarget<T> target_;
  std::int64_t first_;  // number of dz
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
      turned_ = Tensor::empty({of.maps / of.groups * of.taps()}, dtype_of<T>);
      direct_.emplace(turned, of.maps / of.groups, of.channels / of.groups);
      if (of.groups == 1) set_weight(weight);
    } else {
      columns_.emplace(of);
    }
  }
  void add(std::int64_t sample, const T* dz) {
    if (target_.data == nullptr) return;
    T* const dx = target_.data + sample * of_.image();
    for (std::int64_t i = 0; i < of_.groups && direct_; ++i) {
      const Group group(of_, i);
      if (of_.groups > 1) set_weight(weight_ + group.weight);
      direct_->with([&](auto& convolution) {
        if (target_.accumulate) {
          convolution.add_convolved(dz + group.result, dx + group.image);
        } else {
          convolution.convolve(dz + group.result, nullptr, Activation::none, dx + group.image);
        }
      });
    }
    if (!columns_) return;
    columns_->multiply_transposed(weight_, dz);
    columns_->fold(dx, target_.accumulate);
  }

 private:
  void set_weight(const T* weight) {
    T* const turned = turned_.data<T>();
    turn_weight(of_.maps / of_.groups, of_.channels / of_.groups, of_.windows.taps(), weight,
                turned);
    direct_->with([turned](auto& convolution) { convolution.set_weight(turned); });
  }

  const Convolution& of_;
  GradientTarget<T> target_;
  const T* weight_;
  Tensor turned_;
  std::optional<Strideless<T>> direct_;
  std::optional<Columns<T>> columns_;
};

// Whether it takes longer than it takes to tell other threads.
bool suits_threads(const Convolution& of) {
  return threads() > 1 && of.samples * of.result() * of.taps() >= least_for_threads;
}

// f(begin, end) for ranges of samples.
template <class F>
void for_samples(const Convolution& of, F f) {
  if (suits_threads(of)) return parallel_for(of.samples, f);
  f(std::int64_t{0}, of.samples);
}

template <class T>
void convolve_samples(const Convolution& of, const T* x, const T* weight, const T* bias,
                      Activation f, T* y) {
  if (is_direct(of)) {
    return for_samples(of, [=, &of](std::int64_t begin, std::int64_t end) {
      Strideless<T> direct(of.windows, of.channels / of.groups, of.maps / of.groups);
      for (std::int64_t i = 0; i < of.groups; ++i) {
        const Group group(of, i);
        const T* const of_maps = bias == nullptr ? nullptr : bias + group.first_map;
        direct.with([&](auto& convolution) {
          convolution.set_weight(weight + group.weight);
          for (std::int64_t sample = begin; sample < end; ++sample) {
            convolution.convolve(x + sample * of.image() + group.image, of_maps, f,
                                 y + sample * of.result() + group.result);
          }
        });
      }
    });
  }
  for_samples(of, [=, &of](std::int64_t begin, std::int64_t end) {
    Columns<T> columns(of);
    for (std::int64_t sample = begin; sample < end; ++sample) {
      T* const result = y + sample * of.result();
      columns.unfold(x + sample * of.image());
      columns.multiply(weight, result, false);
      if (bias != nullptr) {
        activate_columns(f, of.maps, of.windows.count(), bias, result);
      } else {
        activate(f, of.result(), result, result);
      }
    }
  });
}

// In blocks of a sample for each thread: first each thread does one of these, and then some maps of all of them.
template <class T>
void convolve_samples_backward(const Convolution& of, const T* x, const T* weight, const T* y,
                               const T* dy, Activation f,
                               const std::array<GradientTarget<T>, 3>& targets) {
  const std::int64_t parts = suits_threads(of) ? std::min<std::int64_t>(threads(), of.samples) : 1;
  const std::int64_t parts_of_maps = of.groups == 1 ? std::min(parts, of.maps) : 1;
  std::vector<ImageGradient<T>> images;
  std::vector<WeightGradient<T>> weights;
  BiasGradient<T> bias(targets[2], of.maps, of.windows.count());
  for (std::int64_t i = 0; i < parts; ++i) images.emplace_back(of, targets[0], weight);
  for (std::int64_t i = 0; i < parts_of_maps; ++i) {
    const std::int64_t first = of.maps * i / parts_of_maps;
    weights.emplace_back(of, targets[1], first, of.maps * (i + 1) / parts_of_maps - first);
  }
  Tensor dz = Tensor::empty({f == Activation::none ? 0 : parts * of.result()}, dtype_of<T>);

  for (std::int64_t block = 0; block < of.samples; block += parts) {
    const std::int64_t count = std::min(parts, of.samples - block);
    const T* const before = f == Activation::none ? dy + block * of.result() : dz.data<T>();
    const auto of_part = [&](std::int64_t i) { return before + i * of.result(); };
    parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t sample = block + i;
        if (f != Activation::none) {
          activation_gradient(f, of.result(), y + sample * of.result(), dy + sample * of.result(),
                              dz.data<T>() + i * of.result(), false);
        }
        images[static_cast<std::size_t>(i)].add(sample, of_part(i));
      }
    });
    parallel_for(parts_of_maps, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = begin; part < end; ++part) {
        for (std::int64_t i = 0; i < count; ++i) {
          weights[static_cast<std::size_t>(part)].add(x + (block + i) * of.image(), of_part(i));
        }
      }
    });
    for (std::int64_t i = 0; i < count; ++i) bias.add(of_part(i));
  }
  for (const WeightGradient<T>& part : weights) part.store();
  bias.store();
}

}  // namespace

template <class T>
void convolve(const Convolution& of, const T* x, const T* weight, const T* bias, Activation f,
              T* y) {
  convolve_samples(of, x, weight, bias, f, y);
}

template <class T>
void convolve_backward(const Convolution& of, const T* x, const T* weight, const T* y, const T* dy,
                       Activation f, const std::array<GradientTarget<T>, 3>& targets) {
  convolve_samples_backward(of, x, weight, y, dy, f, targets);
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
