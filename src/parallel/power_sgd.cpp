#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "lockstep/core/error.hpp"
#include "lockstep/parallel/compression.hpp"
#include "lockstep/tensor/random.hpp"
#include "parallel/compressed_gradient.hpp"
#include "tensor/gemm.hpp"
#include "tensor/kernels.hpp"

namespace lockstep {
namespace {

using kernels::Transpose;

// mean = Σ share · message
void average(std::span<const NodeMessage> messages, Tensor& mean) {
  mean.fill(0);
  for (const auto& [bytes, share] : messages) {
    kernels::add_scaled(mean.size(), static_cast<float>(share),
                        reinterpret_cast<const float*>(bytes.data()), mean.data<float>());
  }
}

// Makes the rows of a matrix orthonormal, by modified Gram-Schmidt. What that leaves of a row may be
// so small that rounding errors along the earlier rows matter: so it is done twice. A row that depends
// on earlier ones, to within rounding, becomes zero.
void orthonormalize_rows(Tensor& matrix) {
  constexpr double rounding = 32 * std::numeric_limits<float>::epsilon();
  const std::int64_t rows = matrix.shape()[0], columns = matrix.shape()[1];
  const auto row = [&](std::int64_t i) { return matrix.data<float>() + i * columns; };
  for (std::int64_t i = 0; i < rows; ++i) {
    const double before = std::sqrt(kernels::sum_squares(columns, row(i)));
    for (int pass = 0; pass < 2; ++pass) {
      for (std::int64_t j = 0; j < i; ++j) {
        const double along = kernels::dot(columns, row(j), row(i));
        kernels::add_scaled(columns, static_cast<float>(-along), row(j), row(i));
      }
    }
    const double left = std::sqrt(kernels::sum_squares(columns, row(i)));
    const bool independent = left > rounding * before;
    for (std::int64_t k = 0; k < columns; ++k) {
      float& x = row(i)[k];
      x = independent ? static_cast<float>(x / left) : 0.0F;
    }
  }
}

// P and Q are kept, and sent, as Pᵀ and Qᵀ: their columns are then rows, one after the other.
class PowerSgdCompressor final : public TensorCompressor {
 public:
  PowerSgdCompressor(const std::string& name, RandomKey key, std::int64_t rows,
                     std::int64_t columns, std::int64_t rank)
      : name_(name),
        key_(key),
        rows_(rows),
        columns_(columns),
        rank_(rank),
        p_(Tensor::empty({rank, rows})),
        q_(Tensor::empty({rank, columns})),
        next_q_(Tensor::empty({rank, columns})) {
    fill_normal(q_, key_, 0, 1);
  }

  std::vector<std::size_t> message_bytes() const override { return {p_.bytes(), q_.bytes()}; }

  void encode(std::size_t round, std::span<float> gradient, std::span<std::byte> message) override {
    float* const m = gradient.data();
    auto* const out = reinterpret_cast<float*>(message.data());
    if (round == 0) {
      kernels::gemm(Transpose::no, Transpose::yes, rank_, rows_, columns_, q_.data<float>(), m, out,
                    false);
      return;
    }
    float* const p = p_.data<float>();
    kernels::gemm(Transpose::no, Transpose::no, rank_, columns_, rows_, p, m, out, false);
    kernels::scale(p_.size(), -1.0F, p);
    kernels::gemm(Transpose::yes, Transpose::no, rows_, columns_, rank_, p, out, m, true);
    kernels::scale(p_.size(), -1.0F, p);
  }

  void decode(std::size_t round, std::span<const NodeMessage> messages,
              std::span<float> mean) override {
    if (round == 0) {
      average(messages, p_);
      // What has overflowed is to show in the mean.
      if (all_finite(std::as_const(p_).span<float>())) orthonormalize_rows(p_);
      return;
    }
    average(messages, next_q_);
    kernels::gemm(Transpose::yes, Transpose::no, rows_, columns_, rank_, p_.data<float>(),
                  next_q_.data<float>(), mean.data(), false);
    prepare_next();
  }

  void end(bool used) override {
    if (!used) return;
    std::swap(q_, next_q_);
    draws_ = next_draws_;
  }

  StateDict state_dict() const override { return {{"q", q_}, {"draws", draws_}}; }

  void check_restore(const StateDict& source) const override {
    const std::string what = fmt::format("Q of the gradient of '{}'", name_);
    const Tensor& q = source.at("q").as_tensor();
    check_same(q_, q, what.c_str());
    if (!all_finite(q.span<float>())) {
      throw StateError(fmt::format("{}: expected finite numbers, found others", what));
    }
    if (source.at("draws").as_int() < 0) {
      throw StateError(
          fmt::format("{}: expected draws >= 0, found {}", what, source.at("draws").as_int()));
    }
  }

  void restore(const StateDict& source) override {
    check_restore(source);
    q_.copy_from(source.at("q").as_tensor());
    draws_ = source.at("draws").as_int();
  }

 private:
  // Brings the columns of Q to a length of about 1, by powers of two: so M·Q is about as large as M.
  // A column of zeros would stay that for ever.
  void prepare_next() {
    next_draws_ = draws_;
    for (std::int64_t i = 0; i < rank_; ++i) {
      Tensor column = next_q_.window(i * columns_, {columns_});
      const double norm = std::sqrt(kernels::sum_squares(columns_, column.data<float>()));
      if (norm > 0) {
        const int exponent = std::ilogb(norm);
        for (float& x : column.span<float>()) x = std::ldexp(x, -exponent);
      } else {
        fill_normal(column, key_.fold(static_cast<std::uint64_t>(next_draws_++)), 0, 1);
      }
    }
  }

  std::string name_;
  RandomKey key_;
  std::int64_t rows_, columns_, rank_;
  Tensor p_, q_;
  Tensor next_q_;  // what Q becomes when the reduction is used
  std::int64_t draws_ = 0, next_draws_ = 0;
};

}  // namespace

PowerSgd::PowerSgd(const Options& options) : options_(options) {
  if (options.rank < 1) {
    throw OptionError(fmt::format("PowerSGD: expected rank >= 1, found {}", options.rank));
  }
  if (!(options.least_factor >= 1 && std::isfinite(options.least_factor))) {
    throw OptionError(fmt::format("PowerSGD: expected a finite least_factor >= 1, found {}",
                                  options.least_factor));
  }
}

std::string PowerSgd::describe() const {
  return fmt::format(
      "PowerSGD of rank {}, from {} times fewer numbers, seed {}, after {} reductions",
      options_.rank, options_.least_factor, options_.seed, options_.first_reduction);
}

std::unique_ptr<TensorCompressor> PowerSgd::compressor(const std::string& name,
                                                       const Shape& shape) const {
  const std::int64_t size = shape.size();
  if (shape.rank() < 2 || size == 0) return nullptr;
  const std::int64_t rows = shape[0], columns = size / rows;
  const double sent = static_cast<double>(rows + columns) * static_cast<double>(options_.rank);
  if (static_cast<double>(size) < options_.least_factor * sent) return nullptr;
  return std::make_unique<PowerSgdCompressor>(name, RandomKey(options_.seed).fold(name), rows,
                                              columns, options_.rank);
}

}  // namespace lockstep
