#include "lockstep/nn/module.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <type_traits>

#include "lockstep/core/error.hpp"

namespace lockstep::nn {
namespace {

std::string join(const std::string& prefix, std::string_view name) {
  return prefix.empty() ? std::string(name) : fmt::format("{}.{}", prefix, name);
}

[[noreturn]] void throw_name_taken(const std::string& name) {
  throw NameError(fmt::format("two members of the module are called '{}'", name));
}

constexpr auto ignore = [](const std::string&, auto&) {};

// Calls one function a kind of member for everything below a module, with full names; none are made
// for a kind that is ignored.
template <class OnParameter, class OnBuffer, class OnRandom, class OnModule>
class Walk : public Visitor {
 public:
  Walk(OnParameter on_parameter, OnBuffer on_buffer, OnRandom on_random, OnModule on_module)
      : on_parameter_(std::move(on_parameter)),
        on_buffer_(std::move(on_buffer)),
        on_random_(std::move(on_random)),
        on_module_(std::move(on_module)) {}

  void operator()(std::string_view name, Parameter& parameter) override {
    call(on_parameter_, name, parameter);
  }
  void operator()(std::string_view name, Tensor& buffer) override {
    call(on_buffer_, name, buffer);
  }
  void operator()(std::string_view name, RandomState& random) override {
    call(on_random_, name, random);
  }
  void operator()(std::string_view name, Module& child) override {
    const std::string outer = std::exchange(prefix_, join(prefix_, name));
    on_module_(prefix_, child);
    child.visit(*this);
    prefix_ = outer;
  }

 private:
  template <class Function, class Member>
  void call(Function& function, std::string_view name, Member& member) {
    if constexpr (!std::is_same_v<const Function, decltype(ignore)>) {
      function(join(prefix_, name), member);
    }
  }

  std::string prefix_;
  OnParameter on_parameter_;
  OnBuffer on_buffer_;
  OnRandom on_random_;
  OnModule on_module_;
};

// Visiting hands out mutable members, so that one visit() serves all purposes; the walks below that
// start from a const module only read.
template <class P, class B = decltype(ignore), class R = decltype(ignore),
          class M = decltype(ignore)>
void walk(const Module& root, P on_parameter, B on_buffer = ignore, R on_random = ignore,
          M on_module = ignore) {
  Walk<P, B, R, M> visitor(on_parameter, on_buffer, on_random, on_module);
  const_cast<Module&>(root).visit(visitor);
}

}  // namespace

void Module::visit(Visitor&) {}

void Module::reset_parameters(RandomKey) {}

std::vector<NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> named;
  std::set<std::string> names;
  std::set<const void*> known;
  walk(*this, [&](const std::string& name, const Parameter& parameter) {
    if (!parameter.defined()) return;
    if (!names.insert(name).second) throw_name_taken(name);
    if (known.insert(parameter.identity()).second) named.emplace_back(name, parameter);
  });
  return named;
}

std::vector<Parameter> Module::parameters() const {
  std::vector<Parameter> parameters;
  for (NamedParameter& named : named_parameters()) parameters.push_back(named.parameter);
  return parameters;
}

std::vector<std::pair<std::string, Tensor>> Module::named_buffers() const {
  std::vector<std::pair<std::string, Tensor>> named;
  walk(*this, ignore, [&](const std::string& name, const Tensor& buffer) {
    if (buffer.defined()) named.emplace_back(name, buffer);
  });
  return named;
}

std::vector<std::pair<std::string, Module*>> Module::named_modules() {
  std::vector<std::pair<std::string, Module*>> named{{"", this}};
  std::set<const Module*> known{this};
  walk(*this, ignore, ignore, ignore, [&](const std::string& name, Module& module) {
    if (known.insert(&module).second) named.emplace_back(name, &module);
  });
  return named;
}

void Module::initialize(std::uint64_t seed) {
  std::vector<std::pair<std::string, Module*>> modules = named_modules();
  std::vector<std::pair<std::string, RandomState*>> randoms;
  walk(*this, ignore, ignore,
       [&](const std::string& name, RandomState& random) { randoms.emplace_back(name, &random); });
  // From last to first, so that the first name of what has several is the one that counts.
  std::reverse(modules.begin(), modules.end());
  std::reverse(randoms.begin(), randoms.end());
  const RandomKey root(seed);
  for (const auto& [name, module] : modules) {
    module->reset_parameters(root.fold(name));
  }
  for (const auto& [name, random] : randoms) {
    random->seed = root.fold(name).bits(0);
    random->calls = 0;
  }
}

void Module::train(bool training) {
  training_ = training;
  walk(*this, ignore, ignore, ignore,
       [training](const std::string&, Module& module) { module.training_ = training; });
}

void Module::zero_grad(bool set_to_none) {
  for (Parameter& parameter : parameters()) parameter.zero_grad(set_to_none);
}

void Module::set_requires_grad(bool requires_grad) {
  for (Parameter& parameter : parameters()) parameter.set_requires_grad(requires_grad);
}

void Module::set_random_stream(std::uint64_t stream) {
  walk(*this, ignore, ignore,
       [stream](const std::string&, RandomState& random) { random.stream = stream; });
}

void Module::begin_random_step(std::uint64_t stream) {
  walk(*this, ignore, ignore, [stream](const std::string&, RandomState& random) {
    random.stream = stream;
    random.calls = random.calls / RandomState::step_calls * RandomState::step_calls;
  });
}

void Module::end_random_step() {
  walk(*this, ignore, ignore, [](const std::string&, RandomState& random) {
    random.calls = (random.calls / RandomState::step_calls + 1) * RandomState::step_calls;
  });
}

StateDict Module::state_dict() const {
  StateDict state;
  const auto add = [&state](const std::string& name, StateValue value) {
    if (state.contains(name)) throw_name_taken(name);
    state[name] = std::move(value);
  };
  for (const NamedParameter& named : named_parameters()) add(named.name, named.parameter.value());
  for (const auto& [name, buffer] : named_buffers()) add(name, buffer);
  walk(*this, ignore, ignore, [&](const std::string& name, const RandomState& random) {
    add(name, StateDict{{"seed", random.seed}, {"calls", random.calls}});
  });
  return state;
}

namespace {

// Throws unless both have the same entries, of the same kinds, shapes and dtypes.
void check_fits(const std::string& prefix, const StateDict& own, const StateDict& source) {
  for (const auto& [key, value] : own) {
    const std::string name = join(prefix, key);
    if (!source.contains(key)) {
      throw StateError(fmt::format("the model has '{}', which the state dict lacks", name));
    }
    const StateValue& found = source.at(key);
    if (found.kind() != value.kind()) {
      throw StateError(fmt::format("'{}': expected {} in the state dict, found {}", name,
                                   value.kind(), found.kind()));
    }
    if (std::holds_alternative<Tensor>(value.variant())) {
      check_same(value.as_tensor(), found.as_tensor(), name.c_str());
    } else if (std::holds_alternative<StateDict>(value.variant())) {
      check_fits(name, value.as_dict(), found.as_dict());
    }
  }
  for (const auto& [key, value] : source) {
    if (!own.contains(key)) {
      throw StateError(
          fmt::format("the state dict has '{}', which the model lacks", join(prefix, key)));
    }
  }
}

}  // namespace

void Module::check_restore(const StateDict& source) const { check_fits("", state_dict(), source); }

void Module::restore(const StateDict& source) {
  check_restore(source);
  for (NamedParameter& named : named_parameters()) {
    named.parameter.mutable_value().copy_from(source.at(named.name).as_tensor());
  }
  for (auto& [name, buffer] : named_buffers()) buffer.copy_from(source.at(name).as_tensor());
  walk(*this, ignore, ignore, [&](const std::string& name, RandomState& random) {
    const StateDict& saved = source.at(name).as_dict();
    random.seed = static_cast<std::uint64_t>(saved.at("seed").as_int());
    random.calls = static_cast<std::uint64_t>(saved.at("calls").as_int());
  });
}

}  // namespace lockstep::nn
