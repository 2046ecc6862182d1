#pragma once

#include <cmath>
#include <lockstep/lockstep.hpp>

struct AdaBeliefOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;

  std::vector<lockstep::optim::Field> fields() {
    using lockstep::optim::Domain;
    return {{"lr", &lr, Domain::non_negative},
            {"beta1", &beta1, Domain::fraction},
            {"beta2", &beta2, Domain::fraction},
            {"eps", &eps, Domain::positive}};
  }
};

/// Zhuang et al., "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients",
/// arXiv:2010.07468, algorithm 2.
class AdaBelief : public lockstep::optim::BasicRule<AdaBelief, AdaBeliefOptions> {
 public:
  explicit AdaBelief(const AdaBeliefOptions& options = {}) : BasicRule(options) { check(); }

  std::string_view name() const override { return "AdaBelief"; }
  std::span<const std::string_view> slots() const override {
    static constexpr std::string_view names[]{"exp_avg", "exp_avg_var"};
    return names;
  }
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const lockstep::optim::UpdateRange<T>& range) const {
    const T beta1 = T(options_.beta1), beta2 = T(options_.beta2), eps = T(options_.eps);
    const T size = T(options_.lr / (1 - std::pow(options_.beta1, range.step)));
    const T correction = T(1 - std::pow(options_.beta2, range.step));
    const T scale = T(range.gradient_scale);
    lockstep::optim::for_each<2>(range, [=](T& p, T gradient, T& m, T& s) {
      const T g = scale * gradient;
      m = beta1 * m + (1 - beta1) * g;
      s = beta2 * s + (1 - beta2) * (g - m) * (g - m) + eps;
      p -= size * m / (std::sqrt(s / correction) + eps);
    });
  }
};
