#pragma once

#include <cstdint>

#include "lockstep/autograd/convolution.hpp"
#include "lockstep/autograd/pooling.hpp"
#include "lockstep/nn/module.hpp"

#pragma GCC visibility push(default)

// The operations of autograd/convolution.hpp and autograd/pooling.hpp as modules: of lines of (n, in, length), images
// of (n, in, h, w), and what is deep, of (n, in, d, h, w). Size is std::int64_t, Size2d or Size3d.
namespace lockstep::nn {

template <class Size>
struct ConvOptions {
  Size stride = 1;
  Size padding = 0;
  Size dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  DType dtype = DType::f32;
};
using Conv1dOptions = ConvOptions<std::int64_t>;
using Conv2dOptions = ConvOptions<Size2d>;
using Conv3dOptions = ConvOptions<Size3d>;

template <class Size>
class MaxPool;

/// conv1d, conv2d or conv3d. Starts as Linear does, with fan_in = in / groups · the numbers of a kernel: from
/// U(-1/√fan_in, 1/√fan_in). OptionError unless kernel ≥ 1, and for the options as in conv2d.
template <class Size>
class Conv : public Module {
 public:
  Conv(std::int64_t in, std::int64_t out, Size kernel, const ConvOptions<Size>& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;
  /// f(y), as the activation f after this layer would give it.
  Variable forward(const Variable& x, Activation f);
  /// The maxima that a pooling after that gives, to the bit, mostly without memory of what they are taken from.
  Variable forward(const Variable& x, Activation f, const MaxPool<Size>& pooling);

  Parameter weight;  ///< (out, in / groups, kernel…)
  Parameter bias;    ///< (out); undefined without a bias

 protected:
  void reset_parameters(RandomKey key) override;

 private:
  ConvolutionOptions<Size> options_;
};
extern template class Conv<std::int64_t>;
extern template class Conv<Size2d>;
extern template class Conv<Size3d>;
using Conv1d = Conv<std::int64_t>;
using Conv2d = Conv<Size2d>;
using Conv3d = Conv<Size3d>;

template <class Size>
struct ConvTransposeOptions {
  Size stride = 1;
  Size padding = 0;
  Size dilation = 1;
  std::int64_t groups = 1;
  Size output_padding = 0;
  bool bias = true;
  DType dtype = DType::f32;
};

/// conv_transpose1d, conv_transpose2d or conv_transpose3d. Starts as in PyTorch, from U(-1/√fan, 1/√fan) with
/// fan = out / groups · the numbers of a kernel. OptionError as for Conv.
template <class Size>
class ConvTranspose : public Module {
 public:
  ConvTranspose(std::int64_t in, std::int64_t out, Size kernel,
                const ConvTransposeOptions<Size>& options = {});

  void visit(Visitor& visitor) override;
  Variable forward(const Variable& x) override;

  Parameter weight;  ///< (in, out / groups, kernel…)
  Parameter bias;    ///< (out); undefined without a bias

 protected:
  void reset_parameters(RandomKey key) override;

 private:
  TransposedOptions<Size> options_;
};
extern template class ConvTranspose<std::int64_t>;
extern template class ConvTranspose<Size2d>;
extern template class ConvTranspose<Size3d>;
using ConvTranspose1d = ConvTranspose<std::int64_t>;
using ConvTranspose2d = ConvTranspose<Size2d>;
using ConvTranspose3d = ConvTranspose<Size3d>;

/// max_pool1d, max_pool2d or max_pool3d, by steps of the kernel's size unless the options have a stride. OptionError as
/// there.
template <class Size>
class MaxPool : public Module {
 public:
  explicit MaxPool(Size kernel, const PoolingOptions<Size>& options = {});

  Variable forward(const Variable& x) override;

 private:
  friend Conv<Size>;

  Size kernel_;
  PoolingOptions<Size> options_;
};
extern template class MaxPool<std::int64_t>;
extern template class MaxPool<Size2d>;
extern template class MaxPool<Size3d>;
using MaxPool1d = MaxPool<std::int64_t>;
using MaxPool2d = MaxPool<Size2d>;
using MaxPool3d = MaxPool<Size3d>;

/// avg_pool1d, avg_pool2d or avg_pool3d.
template <class Size>
class AvgPool : public Module {
 public:
  explicit AvgPool(Size kernel, const AveragePoolingOptions<Size>& options = {});

  Variable forward(const Variable& x) override;

 private:
  Size kernel_;
  AveragePoolingOptions<Size> options_;
};
extern template class AvgPool<std::int64_t>;
extern template class AvgPool<Size2d>;
extern template class AvgPool<Size3d>;
using AvgPool1d = AvgPool<std::int64_t>;
using AvgPool2d = AvgPool<Size2d>;
using AvgPool3d = AvgPool<Size3d>;

/// The mean of each channel: (n, channels, …) becomes (n, channels).
class GlobalAvgPool : public Module {
 public:
  Variable forward(const Variable& x) override;
};

}  // namespace lockstep::nn

#pragma GCC visibility pop
