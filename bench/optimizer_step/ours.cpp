// Optimizer steps over 10⁷ numbers, cut into parameters.

#include <cstdint>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "program.hpp"
#include "triad.hpp"

using namespace lockstep;
using bench::median_times;

namespace {

constexpr std::int64_t numbers = 10'000'000;

enum class Memory { flat, separate };

/// Parameters with gradients, in one flat buffer as DataParallel lays them out, or each by itself.
struct Model {
  Model(std::int64_t count, DType dtype, Memory memory)
      : parameters(bench::normal_parameters(count, numbers / count, dtype)) {
    if (memory == Memory::flat) reducer.emplace(parameters, Communicator(MPI_COMM_SELF));
    std::uint64_t i = 0;
    for (NamedParameter& named : parameters) {
      fill_normal(named.parameter.mutable_grad(), RandomKey(2).fold(i++), 0, 1);
    }
  }

  std::vector<NamedParameter> parameters;
  std::optional<GradientReducer> reducer;
};

struct NoOptions {
  std::vector<optim::Field> fields() { return {}; }
};

/// Has the state of Adam, and does nothing with it.
class Idle : public optim::BasicRule<Idle, NoOptions> {
 public:
  Idle() : BasicRule(NoOptions()) {}

  std::string_view name() const override { return "Idle"; }
  std::span<const std::string_view> slots() const override {
    static constexpr std::string_view names[] = {"exp_avg", "exp_avg_sq"};
    return names;
  }
  bool counts_steps() const override { return true; }

  template <class T>
  void step(const optim::UpdateRange<T>&) const {}
};

struct Stepping {
  Stepping(std::int64_t count, const optim::UpdateRule& rule, DType dtype = DType::f32,
           Memory memory = Memory::flat)
      : model(count, dtype, memory), optimizer(model.parameters, rule) {}

  Model model;
  NamedOptimizer optimizer;
};

/// Milliseconds of a step.
template <class Rule>
bench::SetUp step(std::int64_t count, const Rule& rule, DType dtype = DType::f32,
                  Memory memory = Memory::flat) {
  return [=] {
    const auto state = std::make_shared<Stepping>(count, rule, dtype, memory);
    return [state](double seconds) -> bench::Measurement {
      return {1e3 * median_times(seconds, {[&] { state->optimizer.step(); }})[0]};
    };
  };
}

/// Bytes moved by an Adam step, and by the triad, in GB/s.
bench::SetUp step_and_triad(std::int64_t count) {
  return [=] {
    const auto state = std::make_shared<Stepping>(count, optim::Adam());
    const auto triad = std::make_shared<Triad>(numbers);
    return [state, triad](double seconds) -> bench::Measurement {
      const auto times =
          median_times(seconds, {[&] { state->optimizer.step(); }, [&] { triad->run(); }});
      // Value, gradient and both moments are read; all but the gradient are written.
      const double bytes = (4 + 3) * sizeof(float) * static_cast<double>(numbers);
      return {1e-9 * bytes / times[0], 1e-9 * triad->bytes() / times[1]};
    };
  };
}

/// The time of a step that updates nothing in percent of that of Adam over the same parameters; the
/// peer is the limit, 1 %.
bench::SetUp names(std::int64_t count) {
  return [=] {
    const auto adam = std::make_shared<Stepping>(count, optim::Adam());
    const auto idle = std::make_shared<NamedOptimizer>(adam->model.parameters, Idle());
    return [adam, idle](double seconds) -> bench::Measurement {
      // In turns, so that names and handles are as far from the caches as Adam leaves them.
      const auto times =
          median_times(seconds, {[&] { adam->optimizer.step(); }, [&] { idle->step(); }});
      return {100 * times[1] / times[0], 1.0};
    };
  };
}

}  // namespace

int main(int argc, char** argv) {
  mpi::Environment mpi(argc, argv);
  return mpi.run([] {
    const optim::Adam adam;
    const optim::AdamW adamw;
    const optim::SGD sgd({.momentum = 0.9});
    const std::map<std::string, bench::SetUp> cases{
        {"adam-1", step(1, adam)},
        {"adam-1-loop", step(1, adam)},
        {"adam-100", step(100, adam)},
        {"adam-10000", step(10'000, adam)},
        {"adam-10000-separate", step(10'000, adam, DType::f32, Memory::separate)},
        {"adam-f64-1", step(1, adam, DType::f64)},
        {"adam-f64-10000", step(10'000, adam, DType::f64)},
        {"adamw-1", step(1, adamw)},
        {"adamw-10000", step(10'000, adamw)},
        {"sgd-1", step(1, sgd)},
        {"sgd-10000", step(10'000, sgd)},
        {"adam-1-triad", step_and_triad(1)},
        {"adam-100-triad", step_and_triad(100)},
        {"adam-10000-triad", step_and_triad(10'000)},
        {"names-10000", names(10'000)}};
    bench::serve(Communicator(MPI_COMM_WORLD), cases);
    return 0;
  });
}
