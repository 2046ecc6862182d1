#include "tensor/row_norm.hpp"

#include <array>
#include <cmath>

namespace lockstep::kernels {
namespace {

// Σ f(i) over 0 ≤ i < n, in partial sums that compilers make vectors of.
template <class F>
double sum_of(std::int64_t n, F f) {
  constexpr std::int64_t lanes = 16;
  std::array<double, lanes> partial{};
  double total = 0;
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      partial[static_cast<std::size_t>(lane)] += f(i + lane);
    }
  }
  for (; i < n; ++i) total += f(i);
  for (const double value : partial) total += value;
  return total;
}

// Calls use(first number, numbers, index of the weight, step of that) for ranges of a row that have one number
// of the weight, or, where parts are single numbers, one each.
template <class F>
void for_each_part(const RowParts& shape, std::int64_t row, F use) {
  const std::int64_t first = row % shape.cycle * shape.parts;
  if (shape.run == 1) return use(0, shape.parts, first, 1);
  for (std::int64_t part = 0; part < shape.parts; ++part) {
    use(part * shape.run, shape.run, first + part, 0);
  }
}

}  // namespace

template <class T>
void row_moments(const RowParts& shape, const T* x, double eps, double* mean, double* factor) {
  const std::int64_t n = shape.length();
  for (std::int64_t row = 0; row < shape.rows; ++row, x += n) {
    const double m = sum_of(n, [x](std::int64_t i) { return static_cast<double>(x[i]); }) /
                     static_cast<double>(n);
    const double squares = sum_of(n, [x, m](std::int64_t i) {
      const double distance = static_cast<double>(x[i]) - m;
      return distance * distance;
    });
    mean[row] = m;
    factor[row] = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  }
}

template <class T>
void normalize_rows(const RowParts& shape, const T* x, const double* mean, const double* factor,
                    const T* weight, const T* bias, T* y) {
  const std::int64_t n = shape.length();
  for (std::int64_t row = 0; row < shape.rows; ++row, x += n, y += n) {
    // What is lost of a mean that is rounded to T is subtracted as well.
    const T center = static_cast<T>(mean[row]), scale = static_cast<T>(factor[row]);
    const T rest = static_cast<T>((static_cast<double>(center) - mean[row]) * factor[row]);
    for_each_part(
        shape, row,
        [=](std::int64_t first, std::int64_t count, std::int64_t index, std::int64_t step) {
          for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t at = index + i * step;
            T value = (x[first + i] - center) * scale + rest;
            if (weight != nullptr) value *= weight[at];
            if (bias != nullptr) value += bias[at];
            y[first + i] = value;
          }
        });
  }
}

template <class T>
void normalize_rows_backward(const RowParts& shape, const T* x, const double* mean,
                             const double* factor, const T* weight, const T* dy, T* dx,
                             bool accumulate, double* products, double* sums) {
  const std::int64_t n = shape.length();
  for (std::int64_t row = 0; row < shape.rows; ++row, x += n, dy += n) {
    const double m = mean[row], scale = factor[row];
    double sum = 0, product = 0;  // of g, and of g · x̂
    for_each_part(
        shape, row,
        [&](std::int64_t first, std::int64_t count, std::int64_t index, std::int64_t step) {
          const auto normal = [=](std::int64_t i) {
            return (static_cast<double>(x[first + i]) - m) * scale;
          };
          const auto gradient = [=](std::int64_t i) {
            return static_cast<double>(dy[first + i]) *
                   (weight == nullptr ? 1 : static_cast<double>(weight[index + i * step]));
          };
          sum += sum_of(count, gradient);
          product += sum_of(count, [=](std::int64_t i) { return gradient(i) * normal(i); });
          const auto plain = [=](std::int64_t i) { return static_cast<double>(dy[first + i]); };
          if (step == 1) {
            for (std::int64_t i = 0; i < count && products != nullptr; ++i) {
              products[index + i] += plain(i) * normal(i);
            }
            for (std::int64_t i = 0; i < count && sums != nullptr; ++i) sums[index + i] += plain(i);
            return;
          }
          if (products != nullptr) {
            products[index] += sum_of(count, [=](std::int64_t i) { return plain(i) * normal(i); });
          }
          if (sums != nullptr) sums[index] += sum_of(count, plain);
        });
    if (dx == nullptr) continue;
    const double mean_gradient = sum / static_cast<double>(n),
                 mean_product = product / static_cast<double>(n);
    for_each_part(
        shape, row,
        [=](std::int64_t first, std::int64_t count, std::int64_t index, std::int64_t step) {
          for (std::int64_t i = first; i < first + count; ++i) {
            const double g =
                static_cast<double>(dy[i]) *
                (weight == nullptr ? 1 : static_cast<double>(weight[index + (i - first) * step]));
            const double normal = (static_cast<double>(x[i]) - m) * scale;
            const T value = static_cast<T>(scale * (g - mean_gradient - normal * mean_product));
            dx[i] = accumulate ? dx[i] + value : value;
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
