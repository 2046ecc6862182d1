#include "tensor/convolve.hpp"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "core/parallel_for.hpp"
#include "lockstep/core/threads.hpp"
#include "lockstep/tensor/tensor.hpp"
#include "tensor/activations.hpp"
#include "tensor/columns.hpp"
#include "tensor/direct_convolution.hpp"
#include "tensor/phased_gradient.hpp"
#include "tensor/pooling.hpp"
#include "tensor/single_convolution.hpp"
#include "tensor/winograd.hpp"

namespace lockstep::kernels {
namespace {

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

// By what is the fastest, of those that suits_direct().
template <class T>
class WithoutColumns {
 public:
  WithoutColumns(const Windows& windows, std::int64_t channels, std::int64_t maps) {
    if (channels == 1 && maps == 1 && windows.strideless()) {
      single_.emplace(windows);
    } else if (suits_winograd(windows, channels, maps)) {
      winograd_.emplace(windows, channels, maps);
    } else {
      direct_.emplace(windows, channels, maps);
    }
  }
  // f(one of them), which have the same interface.
  template <class F>
  void with(F f) {
    if (single_) return f(*single_);
    if (winograd_) return f(*winograd_);
    f(*direct_);
  }

 private:
  std::optional<SingleConvolution<T>> single_;
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
    // Not by the number of these maps, which depends on that of threads.
    if (of.groups == 1 && maps > 0 && suits_winograd_gradient(of.windows, of.channels, of.maps)) {
      winograd_.emplace(of.windows, of.channels, maps);
    } else if (of.groups == 1 && maps > 0 && DirectWeightGradient<T>::suits(of.channels)) {
      direct_.emplace(of.windows, of.channels, maps);
      if (target.accumulate) direct_->begin_with(target_.data);
    } else {
      if (is_direct(of) && of.windows.strideless() && of.channels == of.groups &&
          of.maps == of.groups) {
        single_.emplace(of.windows);
      } else {
        columns_.emplace(of_);
      }
      if (!target.accumulate) std::fill_n(target_.data, maps * of.taps(), T{0});
    }
  }
  void add(const T* x, const T* dz_of_all) {
    const T* const dz = dz_of_all + first_;
    if (winograd_) winograd_->add(x, dz);
    if (direct_) direct_->add(x, dz);
    for (std::int64_t i = 0; i < of_.groups && single_; ++i) {
      const Group group(of_, i);
      single_->add_weight_gradient(x + group.image, dz + group.result, target_.data + group.weight);
    }
    if (!columns_) return;
    columns_->unfold(x);
    columns_->add_products(dz, target_.data);
  }
  void store() const {
    if (winograd_) winograd_->store(target_.data, target_.accumulate);
    if (direct_) direct_->store(target_.data);
  }

 private:
  Convolution of_;
  GradientTarget<T> target_;
  std::int64_t first_;  // number of dz
  std::optional<WinogradWeightGradient<T>> winograd_;
  std::optional<DirectWeightGradient<T>> direct_;
  std::optional<SingleConvolution<T>> single_;
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
    const std::int64_t maps = of.maps / of.groups, channels = of.channels / of.groups;
    if (!is_direct(of)) {
      columns_.emplace(of);
    } else if (!of.windows.strideless()) {
      phased_.emplace(of.windows, channels, maps);
    } else if (suits_direct(turned)) {
      turned_ = Tensor::empty({maps * of.taps()}, dtype_of<T>);
      direct_.emplace(turned, maps, channels);
    } else {
      columns_.emplace(of);
    }
    if (of.groups == 1) set_weight(weight);
  }
  void add(std::int64_t sample, const T* dz) {
    if (target_.data == nullptr) return;
    T* const dx = target_.data + sample * of_.image();
    for (std::int64_t i = 0; i < of_.groups && !columns_; ++i) {
      const Group group(of_, i);
      if (of_.groups > 1) set_weight(weight_ + group.weight);
      if (phased_) {
        phased_->add(dz + group.result, dx + group.image, target_.accumulate);
        continue;
      }
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
    if (phased_) phased_->set_weight(weight);
    if (!direct_) return;
    T* const turned = turned_.data<T>();
    turn_weight(of_.maps / of_.groups, of_.channels / of_.groups, of_.windows.taps(), weight,
                turned);
    direct_->with([turned](auto& convolution) { convolution.set_weight(turned); });
  }

  const Convolution& of_;
  GradientTarget<T> target_;
  const T* weight_;
  Tensor turned_;
  std::optional<WithoutColumns<T>> direct_;
  std::optional<PhasedImageGradient<T>> phased_;
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

// Where the results of samples go: to the tensor of all of them.
template <class T>
class AllResults {
 public:
  AllResults(T* results, std::int64_t each) : results_(results), each_(each) {}

  T* of(std::int64_t sample) { return results_ + sample * each_; }
  void take(std::int64_t /*sample*/) {}

 private:
  T* results_;
  std::int64_t each_;
};

// Or to memory of one of them, of which only the maxima are kept.
template <class T>
class PooledResults {
 public:
  PooledResults(const Windows& pooling, std::int64_t maps, T* maxima, std::int32_t* pixels)
      : pooling_(pooling),
        maps_(maps),
        maxima_(maxima),
        pixels_(pixels),
        result_(Tensor::empty({maps * pooling.pixels()}, dtype_of<T>)) {}

  T* of(std::int64_t /*sample*/) { return result_.data<T>(); }
  void take(std::int64_t sample) {
    const std::int64_t first = sample * maps_ * pooling_.count();
    max_pool(pooling_, maps_, std::as_const(result_).data<T>(), maxima_ + first, pixels_ + first);
  }

 private:
  Windows pooling_;
  std::int64_t maps_;
  T* maxima_;
  std::int32_t* pixels_;
  Tensor result_;
};

// With the results that make_results() gives to each thread.
template <class T, class MakeResults>
void convolve_samples(const Convolution& of, const T* x, const T* weight, const T* bias,
                      Activation f, MakeResults make_results) {
  if (is_direct(of)) {
    return for_samples(of, [=, &of](std::int64_t begin, std::int64_t end) {
      auto results = make_results();
      WithoutColumns<T> direct(of.windows, of.channels / of.groups, of.maps / of.groups);
      for (std::int64_t i = 0; i < of.groups; ++i) {
        const Group group(of, i);
        const T* const of_maps = bias == nullptr ? nullptr : bias + group.first_map;
        direct.with([&](auto& convolution) {
          convolution.set_weight(weight + group.weight);
          for (std::int64_t sample = begin; sample < end; ++sample) {
            convolution.convolve(x + sample * of.image() + group.image, of_maps, f,
                                 results.of(sample) + group.result);
            if (of.groups == 1) results.take(sample);
          }
        });
      }
    });
  }
  for_samples(of, [=, &of](std::int64_t begin, std::int64_t end) {
    auto results = make_results();
    Columns<T> columns(of);
    for (std::int64_t sample = begin; sample < end; ++sample) {
      T* const result = results.of(sample);
      columns.unfold(x + sample * of.image());
      columns.multiply(weight, result, false);
      if (bias != nullptr) {
        activate_columns(f, of.maps, of.windows.count(), bias, result);
      } else {
        activate(f, of.result(), result, result);
      }
      results.take(sample);
    }
  });
}

// With dz, the gradient of what the activation takes, as gradient_of(sample, memory) gives it, perhaps there. In blocks
// of a sample for each thread: first each thread does one of these, and then some maps of all of them.
template <class T, class GradientOf>
void convolve_samples_backward(const Convolution& of, const T* x, const T* weight,
                               const std::array<GradientTarget<T>, 3>& targets,
                               GradientOf gradient_of) {
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
  Tensor memory = Tensor::empty({parts * of.result()}, dtype_of<T>);
  T* const of_parts = memory.data<T>();
  std::vector<const T*> dz(static_cast<std::size_t>(parts));

  for (std::int64_t block = 0; block < of.samples; block += parts) {
    const std::int64_t count = std::min(parts, of.samples - block);
    parallel_for(count, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto part = static_cast<std::size_t>(i);
        dz[part] = gradient_of(block + i, of_parts + i * of.result());
        images[part].add(block + i, dz[part]);
      }
    });
    parallel_for(parts_of_maps, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t part = begin; part < end; ++part) {
        for (std::int64_t i = 0; i < count; ++i) {
          weights[static_cast<std::size_t>(part)].add(x + (block + i) * of.image(),
                                                      dz[static_cast<std::size_t>(i)]);
        }
      }
    });
    for (std::int64_t i = 0; i < count; ++i) bias.add(dz[static_cast<std::size_t>(i)]);
  }
  for (const WeightGradient<T>& part : weights) part.store();
  bias.store();
}

}  // namespace

template <class T>
void convolve(const Convolution& of, const T* x, const T* weight, const T* bias, Activation f,
              T* y) {
  convolve_samples(of, x, weight, bias, f, [=, &of] { return AllResults<T>(y, of.result()); });
}

template <class T>
void convolve_backward(const Convolution& of, const T* x, const T* weight, const T* y, const T* dy,
                       Activation f, const std::array<GradientTarget<T>, 3>& targets) {
  const std::int64_t each = of.result();
  convolve_samples_backward(of, x, weight, targets, [=](std::int64_t sample, T* dz) -> const T* {
    if (f == Activation::none) return dy + sample * each;
    activation_gradient(f, each, y + sample * each, dy + sample * each, dz, false);
    return dz;
  });
}

bool suits_pooling(const Convolution& of, const Windows& pooling) {
  for (const WindowAxis& axis : {pooling.deep, pooling.vertical, pooling.horizontal}) {
    if (axis.stride < axis.reach()) return false;
  }
  return of.groups == 1;
}

template <class T>
void convolve_and_pool(const Convolution& of, const Windows& pooling, const T* x, const T* weight,
                       const T* bias, Activation f, T* maxima, std::int32_t* pixels) {
  convolve_samples(of, x, weight, bias, f, [=, &of, &pooling] {
    return PooledResults<T>(pooling, of.maps, maxima, pixels);
  });
}

template <class T>
void convolve_and_pool_backward(const Convolution& of, const Windows& pooling, const T* x,
                                const T* weight, const T* maxima, const std::int32_t* pixels,
                                const T* gradient, Activation f,
                                const std::array<GradientTarget<T>, 3>& targets) {
  const std::int64_t each = of.maps * pooling.count();
  convolve_samples_backward(
      of, x, weight, targets, [=, &of, &pooling](std::int64_t sample, T* dz) -> const T* {
        const std::int64_t first = sample * each;
        const T* of_maxima = gradient + first;
        Tensor of_sums;
        if (f != Activation::none) {
          of_sums = Tensor::empty({each}, dtype_of<T>);
          activation_gradient(f, each, maxima + first, of_maxima, of_sums.data<T>(), false);
          of_maxima = std::as_const(of_sums).template data<T>();
        }
        max_unpool(pooling, of.maps, of_maxima, pixels + first, dz, false);
        return dz;
      });
}

#define LOCKSTEP_INSTANTIATE(T)                                                                  \
  template void convolve<T>(const Convolution&, const T*, const T*, const T*, Activation, T*);   \
  template void convolve_backward<T>(const Convolution&, const T*, const T*, const T*, const T*, \
                                     Activation, const std::array<GradientTarget<T>, 3>&);       \
  template void convolve_and_pool<T>(const Convolution&, const Windows&, const T*, const T*,     \
                                     const T*, Activation, T*, std::int32_t*);                   \
  template void convolve_and_pool_backward<T>(                                                   \
      const Convolution&, const Windows&, const T*, const T*, const T*, const std::int32_t*,     \
      const T*, Activation, const std::array<GradientTarget<T>, 3>&);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
