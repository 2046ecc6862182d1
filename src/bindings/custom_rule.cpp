#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "bindings/optimizer.hpp"
#include "lockstep/core/error.hpp"

namespace lockstep::bindings {
namespace {

struct Definition {
  std::string name;
  std::vector<std::string> slots;
  std::vector<std::string> fields;
  bool whole_parameters = false;
  int (*update)(void* context, const lockstep_update* update) = nullptr;
  void* context = nullptr;

  std::vector<std::string_view> slot_names;  // of slots
};

class CustomRule : public optim::UpdateRule {
 public:
  CustomRule(std::shared_ptr<const Definition> definition, std::vector<double> values)
      : definition_(std::move(definition)), values_(std::move(values)) {}

  std::unique_ptr<UpdateRule> clone() const override { return std::make_unique<CustomRule>(*this); }
  std::string_view name() const override { return definition_->name; }
  std::vector<optim::Field> fields() override {
    std::vector<optim::Field> fields;
    for (std::size_t i = 0; i < values_.size(); ++i) {
      fields.push_back({definition_->fields[i], &values_[i]});
    }
    return fields;
  }
  std::span<const std::string_view> slots() const override { return definition_->slot_names; }
  bool counts_steps() const override { return true; }
  bool whole_parameters() const override { return definition_->whole_parameters; }
  void update(const optim::UpdateRange<float>& range) const override { run(range, LOCKSTEP_F32); }
  void update(const optim::UpdateRange<double>& range) const override { run(range, LOCKSTEP_F64); }

 private:
  template <class T>
  void run(const optim::UpdateRange<T>& range, lockstep_dtype dtype) const {
    std::array<void*, max_slots> slots{};
    for (std::size_t i = 0; i < definition_->slots.size(); ++i) slots[i] = range.slots[i].data();
    lockstep_update update{};
    update.dtype = dtype;
    update.size = static_cast<std::int64_t>(range.value.size());
    update.value = range.value.data();
    update.gradient = range.gradient.data();
    update.slots = slots.data();
    update.hyper_parameters = values_.data();
    update.step = range.step;
    update.gradient_scale = range.gradient_scale;
    const int failed = definition_->update(definition_->context, &update);
    if (failed != 0) {
      throw CallbackError(fmt::format("the update of rule {} returned {}", name(), failed));
    }
  }

  std::shared_ptr<const Definition> definition_;
  std::vector<double> values_;
};

void check_count(std::int64_t count, std::int64_t most, const char* what) {
  if (count >= 0 && count <= most) return;
  throw OptionError(fmt::format("{}: expected 0 to {}, found {}", what, most, count));
}

void add_name(std::vector<std::string>& names, const char* name, const char* what) {
  const std::string added = text_of(name, what);
  if (std::find(names.begin(), names.end(), added) != names.end()) {
    throw NameError(fmt::format("{}: '{}' comes twice", what, added));
  }
  names.push_back(added);
}

}  // namespace

std::unique_ptr<optim::UpdateRule> custom_rule(const lockstep_rule* definition) {
  const lockstep_rule& given = *check_pointer(definition, "rule");
  auto own = std::make_shared<Definition>();
  own->name = text_of(given.name, "rule.name");
  check_count(given.slot_count, optim::UpdateRule::max_slots, "rule.slot_count");
  if (given.slot_count > 0) check_pointer(given.slot_names, "rule.slot_names");
  for (std::int64_t i = 0; i < given.slot_count; ++i) {
    add_name(own->slots, given.slot_names[i], "rule.slot_names");
    if (own->slots.back() == "step")
      throw NameError("rule.slot_names: 'step' is the step's number");
  }
  own->slot_names.assign(own->slots.begin(), own->slots.end());
  check_count(given.hyper_parameter_count, 100, "rule.hyper_parameter_count");
  if (given.hyper_parameter_count > 0) {
    check_pointer(given.hyper_parameters, "rule.hyper_parameters");
  }
  std::vector<double> values;
  for (std::int64_t i = 0; i < given.hyper_parameter_count; ++i) {
    add_name(own->fields, given.hyper_parameters[i].name, "rule.hyper_parameters");
    values.push_back(given.hyper_parameters[i].value);
  }
  if (std::find(own->fields.begin(), own->fields.end(), "lr") == own->fields.end()) {
    throw NameError(fmt::format("rule {}: expected a hyper-parameter 'lr'", own->name));
  }
  own->whole_parameters = given.whole_parameters != 0;
  own->update = check_pointer(given.update, "rule.update");
  own->context = given.context;
  return std::make_unique<CustomRule>(std::move(own), std::move(values));
}

}  // namespace lockstep::bindings
