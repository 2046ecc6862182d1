#include "lockstep/optim/lbfgs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "lockstep/core/error.hpp"
#include "optim/collect_parameters.hpp"
#include "optim/strong_wolfe.hpp"
#include "tensor/dispatch.hpp"
#include "tensor/kernels.hpp"

namespace lockstep::optim {

std::vector<Field> LBFGSOptions::fields() {
  return {{"lr", &lr, Domain::non_negative},
          {"max_iter", &max_iter, Domain::positive},
          {"max_eval", &max_eval, Domain::non_negative},
          {"tolerance_grad", &tolerance_grad, Domain::non_negative},
          {"tolerance_change", &tolerance_change, Domain::non_negative},
          {"history_size", &history_size, Domain::positive},
          {"strong_wolfe", &strong_wolfe}};
}

namespace {

class LBFGSHyperParameters : public HyperParameters {
 public:
  explicit LBFGSHyperParameters(const LBFGSOptions& options) : values(options) { check(); }
  std::string_view name() const override { return "LBFGS"; }
  std::vector<Field> fields() override { return values.fields(); }

  LBFGSOptions values;
};

using Vector = std::vector<Tensor>;

double dot(const Vector& x, const Vector& y) {
  double total = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    dispatch_floating(x[i].dtype(), [&]<class T>() {
      total += kernels::dot(x[i].size(), x[i].data<T>(), y[i].data<T>());
    });
  }
  return total;
}

void add_scaled(double factor, const Vector& x, Vector& y) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    dispatch_floating(x[i].dtype(), [&]<class T>() {
      kernels::add_scaled(x[i].size(), static_cast<T>(factor), x[i].data<T>(), y[i].data<T>());
    });
  }
}

Vector scaled(double factor, const Vector& x) {
  Vector y;
  for (const Tensor& tensor : x) {
    y.push_back(tensor.clone());
    dispatch_floating(tensor.dtype(), [&]<class T>() {
      kernels::scale(tensor.size(), static_cast<T>(factor), y.back().data<T>());
    });
  }
  return y;
}

double sum_magnitudes(const Vector& x) {
  double total = 0;
  for (const Tensor& tensor : x) {
    dispatch_floating(tensor.dtype(), [&]<class T>() {
      for (const T number : tensor.span<T>()) total += std::abs(static_cast<double>(number));
    });
  }
  return total;
}

double largest_magnitude(const Vector& x) {
  double largest = 0;
  for (const Tensor& tensor : x) {
    dispatch_floating(tensor.dtype(), [&]<class T>() {
      for (const T number : tensor.span<T>()) {
        const double size = std::abs(static_cast<double>(number));
        if (!(size <= largest)) largest = size;  // NaN is the largest
      }
    });
  }
  return largest;
}

}  // namespace

LBFGS::LBFGS(const std::vector<NamedParameter>& parameters, const LBFGSOptions& options) {
  KnownParameters known = collect_parameters(parameters, "optimizer");
  groups_.emplace_back("0", std::move(known.parameters),
                       std::make_unique<LBFGSHyperParameters>(options));
  aliases_ = std::move(known.aliases);
}

const LBFGSOptions& LBFGS::options() const {
  return static_cast<const LBFGSHyperParameters&>(groups_.front().hyper_parameters()).values;
}

void LBFGS::add_param_group(const ParamGroupOptions&) {
  throw OptionError("LBFGS steps all of its parameters at once: it has one param group");
}

void LBFGS::visit_parameters(const std::function<void(const NamedParameter&)>& visit) const {
  for (const NamedParameter& named : parameters()) visit(named);
}

bool LBFGS::contains(const Parameter& parameter) const {
  const auto is_it = [&parameter](const NamedParameter& named) {
    return named.parameter == parameter;
  };
  return std::any_of(parameters().begin(), parameters().end(), is_it);
}

void LBFGS::init_state() {
  for (const NamedParameter& named : parameters()) {
    Parameter parameter = named.parameter;
    if (parameter.requires_grad() && !parameter.has_grad()) parameter.mutable_grad();
  }
}

bool LBFGS::update(double) {
  check_step();
  return true;
}

void LBFGS::update(const Parameter&, double) { check_step(); }

LBFGS::Vector LBFGS::values() const {
  Vector values;
  for (const NamedParameter& named : parameters())
    values.push_back(named.parameter.value().clone());
  return values;
}

// Copies, since the next closure writes over them; zeros where a parameter is not to move.
LBFGS::Vector LBFGS::gradients() const {
  Vector gradients;
  for (const NamedParameter& named : parameters()) {
    const Parameter& parameter = named.parameter;
    gradients.push_back(parameter.has_grad() && parameter.requires_grad()
                            ? parameter.grad().clone()
                            : Tensor::zeros(parameter.shape(), parameter.dtype()));
  }
  return gradients;
}

void LBFGS::move_to(const Vector& start, double step_size, const Vector& direction) {
  Vector targets;
  for (const NamedParameter& named : parameters()) {
    Parameter parameter = named.parameter;
    targets.push_back(parameter.mutable_value());
    targets.back().copy_from(start[targets.size() - 1]);
  }
  if (step_size != 0) add_scaled(step_size, direction, targets);
}

void LBFGS::check_step() const {
  throw OptionError("LBFGS needs a closure that computes the loss: step(closure)");
}

double LBFGS::step_with(const Closure& closure) {
  if (!closure) throw OptionError("the closure of a step must not be empty");
  if (clipping()) {
    throw OptionError("LBFGS cannot clip gradients: it searches by their exact values");
  }
  run_before_step();
  const Vector start = values();
  const Search before = search_;
  double loss = 0;
  try {
    loss = closure();
    ++search_.evaluations;
    check_finite(loss);
    Vector gradient = gradients();
    check_finite(gradient);
    if (largest_magnitude(gradient) > options().tolerance_grad) {
      iterate(closure, loss, std::move(gradient));
    }
  } catch (...) {
    move_to(start, 0, start);
    search_ = before;
    throw;
  }
  run_after_step({});
  return loss;
}

void LBFGS::check_finite(double loss) const {
  if (std::isfinite(loss)) return;
  throw StateError(
      fmt::format("LBFGS: the loss is {}; a smaller lr or strong_wolfe may help", loss));
}

void LBFGS::check_finite(const Vector& gradient) const {
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    if (std::isfinite(dot({gradient[i]}, {gradient[i]}))) continue;
    throw StateError(
        fmt::format("the gradient of parameter '{}' is not finite", parameters()[i].name));
  }
}

void LBFGS::iterate(const Closure& closure, double loss, Vector gradient) {
  const LBFGSOptions& options = this->options();
  const std::int64_t max_eval = options.max_eval > 0 ? options.max_eval : options.max_iter * 5 / 4;
  std::int64_t evaluations = 1;

  for (std::int64_t iteration = 1;; ++iteration) {
    ++search_.iterations;
    const bool first = search_.iterations == 1;
    if (first) {
      search_.direction = scaled(-1, gradient);
    } else {
      remember(gradient);
      search_.direction = newton_direction(gradient);
    }
    search_.previous_gradient = gradient;
    search_.loss = loss;
    search_.step_size =
        first ? std::min(1.0, 1 / sum_magnitudes(gradient)) * options.lr : options.lr;
    const Vector& direction = search_.direction;
    const double slope = dot(gradient, direction);
    if (slope > -options.tolerance_change) return;

    const Vector from = values();
    const auto evaluate = [&](double t) {
      move_to(from, t, direction);
      LinePoint point{.t = t, .loss = closure(), .gradient = gradients()};
      ++evaluations;
      ++search_.evaluations;
      point.slope = dot(point.gradient, direction);
      return point;
    };
    if (options.strong_wolfe) {
      const LinePoint start{.t = 0, .loss = loss, .slope = slope, .gradient = gradient};
      LinePoint found = strong_wolfe(start, search_.step_size, largest_magnitude(direction),
                                     options.tolerance_change, evaluate);
      search_.step_size = found.t;
      move_to(from, found.t, direction);
      loss = found.loss;
      gradient = std::move(found.gradient);
    } else if (iteration < options.max_iter) {
      LinePoint found = evaluate(search_.step_size);
      loss = found.loss;
      gradient = std::move(found.gradient);
    } else {
      // The last point of a step is not looked at: the next step begins with that.
      move_to(from, search_.step_size, direction);
    }
    check_finite(loss);
    check_finite(gradient);

    if (iteration == options.max_iter || evaluations >= max_eval ||
        largest_magnitude(gradient) <= options.tolerance_grad ||
        largest_magnitude(direction) * search_.step_size <= options.tolerance_change ||
        std::abs(loss - search_.loss) < options.tolerance_change) {
      return;
    }
  }
}

// Takes the last move, and how the gradient changed by it, into the history.
void LBFGS::remember(const Vector& gradient) {
  Pair pair{.gradient_change = scaled(1, gradient),
            .value_change = scaled(search_.step_size, search_.direction)};
  add_scaled(-1, search_.previous_gradient, pair.gradient_change);
  const double product = dot(pair.gradient_change, pair.value_change);
  if (!(product > 1e-10)) return;
  pair.inverse_product = 1 / product;
  search_.scale = product / dot(pair.gradient_change, pair.gradient_change);
  const auto most = static_cast<std::size_t>(options().history_size);
  while (search_.history.size() >= most) search_.history.pop_front();
  search_.history.push_back(std::move(pair));
}

// -H · gradient, with H the approximation to the inverse Hessian.
LBFGS::Vector LBFGS::newton_direction(const Vector& gradient) const {
  const std::deque<Pair>& history = search_.history;
  Vector direction = scaled(-1, gradient);
  std::vector<double> alpha(history.size());
  for (std::size_t i = history.size(); i-- > 0;) {
    alpha[i] = dot(history[i].value_change, direction) * history[i].inverse_product;
    add_scaled(-alpha[i], history[i].gradient_change, direction);
  }
  direction = scaled(search_.scale, direction);
  for (std::size_t i = 0; i < history.size(); ++i) {
    const double beta = dot(history[i].gradient_change, direction) * history[i].inverse_product;
    add_scaled(alpha[i] - beta, history[i].value_change, direction);
  }
  for (std::size_t i = 0; i < direction.size(); ++i) {
    // What was frozen after the history was made.
    if (!parameters()[i].parameter.requires_grad()) direction[i].fill(0);
  }
  return direction;
}

}  // namespace lockstep::optim
