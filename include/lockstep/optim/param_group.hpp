#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/optim/hyper_parameters.hpp"
#include "lockstep/state/state_dict.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// Which of an optimizer's parameters are meant: by the parameters themselves, by name, by glob
/// ("net1.*", where * and ? stand for dots too), or by a predicate. A glob that is the name of a
/// parameter stands for that one alone.
class ParameterSelection {
 public:
  using Predicate = std::function<bool(const NamedParameter&)>;

  ParameterSelection() = default;
  ParameterSelection(Parameter parameter)  // NOLINT: selections are made from all of these
      : parameters_{std::move(parameter)} {}
  ParameterSelection(std::vector<Parameter> parameters)  // NOLINT
      : parameters_(std::move(parameters)) {}
  ParameterSelection(std::initializer_list<Parameter> parameters) : parameters_(parameters) {}
  ParameterSelection(const std::vector<NamedParameter>& parameters);                // NOLINT
  ParameterSelection(const char* glob) : globs_{glob} {}                            // NOLINT
  ParameterSelection(std::string glob) : globs_{std::move(glob)} {}                 // NOLINT
  ParameterSelection(std::vector<std::string> globs) : globs_(std::move(globs)) {}  // NOLINT
  ParameterSelection(std::initializer_list<const char*> globs)
      : globs_(globs.begin(), globs.end()) {}
  template <std::predicate<const NamedParameter&> F>
  ParameterSelection(F predicate) : predicate_(std::move(predicate)) {}  // NOLINT

  /// The selected ones of `known`: in the order in which they were given, or for globs and
  /// predicates in that of `known`. `aliases` are other names of known ones, which a name may be,
  /// but no glob matches. OptionError where nothing is selected; NameError for a parameter that is not known or is
  /// given twice, or a glob that matches no name.
  std::vector<NamedParameter> select(const std::vector<NamedParameter>& known,
                                     const std::map<std::string, std::string>& aliases = {}) const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<std::string> globs_;
  Predicate predicate_;
};

/// What is asked for when a param group is made. Hyper-parameters that are not named here are those
/// of the optimizer's update rule: {.params = model.net3.parameters(), .lr = 1e-3}.
struct ParamGroupOptions {
  ParameterSelection params;
  std::optional<double> lr = std::nullopt;
  StateDict fields = {};  ///< any other hyper-parameters by name: {{"weight_decay", 1e-4}}
  std::string name = {};  ///< what schedules call it; else its number, from "0", or the next free
};

/// Parameters that share hyper-parameters. A group belongs to its optimizer, and what is set here
/// is what the next step uses.
class ParamGroup {
 public:
  ParamGroup(std::string name, std::vector<NamedParameter> parameters,
             std::unique_ptr<optim::HyperParameters> hyper_parameters);

  const std::string& name() const noexcept { return name_; }
  const std::vector<NamedParameter>& parameters() const noexcept { return parameters_; }
  /// The names of the parameters, sorted.
  std::vector<std::string> names() const;

  double lr() const { return get("lr").as_double(); }
  void set_lr(double lr) { set({{"lr", lr}}); }
  /// Hyper-parameters by name; see HyperParameters::get and HyperParameters::set for the errors.
  StateValue get(std::string_view field) const { return hyper_parameters_->get(field); }
  void set(const StateDict& values) { hyper_parameters_->set(values); }
  const optim::HyperParameters& hyper_parameters() const noexcept { return *hyper_parameters_; }

  /// "name"; "params", the sorted names; and every hyper-parameter.
  StateDict state_dict() const;

 private:
  std::string name_;
  std::vector<NamedParameter> parameters_;
  std::unique_ptr<optim::HyperParameters> hyper_parameters_;
};

/// The groups of an optimizer, live. References to groups stay valid while the optimizer lives.
template <class Group>
class ParamGroupView {
 public:
  class Iterator {
   public:
    using value_type = Group;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    explicit Iterator(Group* const* at) : at_(at) {}
    Group& operator*() const { return **at_; }
    Group* operator->() const { return *at_; }
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    Iterator operator++(int) { return Iterator(at_++); }
    bool operator==(const Iterator&) const = default;

   private:
    Group* const* at_ = nullptr;
  };

  explicit ParamGroupView(std::vector<Group*> groups) : groups_(std::move(groups)) {}

  std::size_t size() const noexcept { return groups_.size(); }
  Group& operator[](std::size_t index) const { return *groups_[index]; }
  Group& front() const { return *groups_.front(); }
  Group& back() const { return *groups_.back(); }
  Iterator begin() const { return Iterator(groups_.data()); }
  Iterator end() const { return Iterator(groups_.data() + groups_.size()); }

 private:
  std::vector<Group*> groups_;
};

using ParamGroups = ParamGroupView<ParamGroup>;
using ConstParamGroups = ParamGroupView<const ParamGroup>;

}  // namespace lockstep

#pragma GCC visibility pop
