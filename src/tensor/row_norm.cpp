#include "tensor/row_norm.hpp"

#include <cmath>

#include "tensor/block_sum.hpp"

namespace lockstep::kernels {
namespace {

// Calls use(first number, numbers, w) for ranges of a row of which the weight of number first + i is w(i): for the row where
// parts are single numbers, else for each part. `weight` may be null.
template <class T, class F>
void for_each_range(const RowParts& shape, std::int64_t row, const T* weight, F use) {
  const auto constant = [](T number) { return [number](std::int64_t) { return number; }; };
  const std::int64_t first = row % shape.cycle * shape.parts;
  if (weight == nullptr) return use(0, shape.length(), constant(T{1}));
  if (shape.run == 1) {
    return use(0, shape.parts, [from = weight + first](std::int64_t i) { return from[i]; });
  }
  for (std::int64_t part = 0; part < shape.parts; ++part) {
    use(part * shape.run, shape.run, constant(weight[first + part]));
  }
}

// x̂ = (x - mean) · factor of numbers of type T; what is lost of a mean that is rounded is subtracted as well.
template <class T>
class Normal {
 public:
  Normal(double mean, double factor)
      : center_(static_cast<T>(mean)),
        scale_(static_cast<T>(factor)),
        rest_(static_cast<T>((static_cast<double>(center_) - mean) * factor)) {}

  T operator()(T x) const { return (x - center_) * scale_ + rest_; }
  T scale() const { return scale_; }

 private:
  T center_, scale_, rest_;
};

}  // namespace

template <class T>
void row_moments(const RowParts& shape, const T* x, double eps, double* mean, double* factor) {
  const std::int64_t n = shape.length();
  const auto count = static_cast<double>(n);
  for (std::int64_t row = 0; row < shape.rows; ++row, x += n) {
    // Of distances from a number of the row, which are small where all are far from 0.
    const T about = x[0];
    const double distance =
        sum_blocks<T, T>(n, [=](std::int64_t i) { return x[i] - about; }) / count;
    const T center = static_cast<T>(static_cast<double>(about) + distance);
    const double rest = static_cast<double>(about) - static_cast<double>(center) + distance;
    const double squares = sum_blocks<T, T>(n, [=](std::int64_t i) {
      const T from_center = x[i] - center;
      return from_center * from_center;
    });
    mean[row] = static_cast<double>(about) + distance;
    factor[row] = 1 / std::sqrt(squares / count - rest * rest + eps);
  }
}

template <class T>
void normalize_rows(const RowParts& shape, const T* x, const double* mean, const double* factor,
                    const T* weight, const T* bias, T* y) {
  const std::int64_t n = shape.length();
  for (std::int64_t row = 0; row < shape.rows; ++row, x += n, y += n) {
    const Normal<T> normal(mean[row], factor[row]);
    for_each_range(shape, row, weight, [=](std::int64_t first, std::int64_t count, auto w) {
      for (std::int64_t i = 0; i < count; ++i) y[first + i] = normal(x[first + i]) * w(i);
    });
    if (bias == nullptr) continue;
    for_each_range(shape, row, bias, [=](std::int64_t first, std::int64_t count, auto b) {
      for (std::int64_t i = 0; i < count; ++i) y[first + i] += b(i);
    });
  }
}

namespace {

// products += Σ dy · x̂ and sums += Σ dy of each number of the weight, of one row.
template <class T>
void add_parameter_gradients(const RowParts& shape, std::int64_t row, const Normal<T>& normal,
                             const T* x, const T* dy, double* products, double* sums) {
  const std::int64_t index = row % shape.cycle * shape.parts;
  const auto product = [=](std::int64_t i) { return dy[i] * normal(x[i]); };
  if (shape.run == 1) {
    for (std::int64_t i = 0; i < shape.parts && products != nullptr; ++i) {
      products[index + i] += static_cast<double>(product(i));
    }
    for (std::int64_t i = 0; i < shape.parts && sums != nullptr; ++i) {
      sums[index + i] += static_cast<double>(dy[i]);
    }
    return;
  }
  for (std::int64_t part = 0; part < shape.parts; ++part) {
    const std::int64_t first = part * shape.run;
    if (products != nullptr) {
      products[index + part] +=
          sum_blocks<T, T>(shape.run, [=](std::int64_t i) { return product(first + i); });
    }
    if (sums != nullptr) {
      sums[index + part] +=
          sum_blocks<T, T>(shape.run, [=](std::int64_t i) { return dy[first + i]; });
    }
  }
}

}  // namespace

template <class T>
void normalize_rows_backward(const RowParts& shape, const T* x, const double* mean,
                             const double* factor, const T* weight, const T* dy, T* dx,
                             bool accumulate, double* products, double* sums) {
  const std::int64_t n = shape.length();
  for (std::int64_t row = 0; row < shape.rows; ++row, x += n, dy += n) {
    const Normal<T> normal(mean[row], factor[row]);
    add_parameter_gradients(shape, row, normal, x, dy, products, sums);
    if (dx == nullptr) continue;
    double sum = 0, product = 0;  // of g, and of g · x̂
    for_each_range(shape, row, weight, [&](std::int64_t first, std::int64_t count, auto w) {
      const auto g = [=](std::int64_t i) { return dy[first + i] * w(i); };
      sum += sum_blocks<T, T>(count, g);
      product +=
          sum_blocks<T, T>(count, [=](std::int64_t i) { return g(i) * normal(x[first + i]); });
    });
    const T mean_gradient = static_cast<T>(sum / static_cast<double>(n)),
            mean_product = static_cast<T>(product / static_cast<double>(n));
    for_each_range(shape, row, weight, [=](std::int64_t first, std::int64_t count, auto w) {
      const auto value = [=](std::int64_t i) {
        const T g = dy[first + i] * w(i);
        return normal.scale() * (g - mean_gradient - normal(x[first + i]) * mean_product);
      };
      T* const to = dx + first;
      if (accumulate) {
        for (std::int64_t i = 0; i < count; ++i) to[i] += value(i);
      } else {
        for (std::int64_t i = 0; i < count; ++i) to[i] = value(i);
      }
    });
    dx += n;
  }
}

#define LOCKSTEP_INSTANTIATE(T)                                                                  \
  template void row_moments<T>(const RowParts&, const T*, double, double*, double*);             \
  template void normalize_rows<T>(const RowParts&, const T*, const double*, const double*,       \
                                  const T*, const T*, T*);                                       \
  template void normalize_rows_backward<T>(const RowParts&, const T*, const double*,             \
                                           const double*, const T*, const T*, T*, bool, double*, \
                                           double*);
LOCKSTEP_INSTANTIATE(float)
LOCKSTEP_INSTANTIATE(double)
#undef LOCKSTEP_INSTANTIATE

}  // namespace lockstep::kernels
