#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/default_rules.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace update_rule_options_test {

using namespace testing;

struct Domains {
  std::string rule;
  std::vector<std::string> non_negative, positive, fractions, switches;
};

const std::vector<Domains> domains{
    {"SGD", {"lr", "momentum", "dampening", "weight_decay"}, {}, {}, {"nesterov", "maximize"}},
    {"Adam", {"lr", "weight_decay"}, {"eps"}, {"beta1", "beta2"}, {"amsgrad", "maximize"}},
    {"AdamW", {"lr", "weight_decay"}, {"eps"}, {"beta1", "beta2"}, {"amsgrad", "maximize"}},
    {"NAdam", {"lr", "weight_decay", "momentum_decay"}, {"eps"}, {"beta1", "beta2"}, {"maximize"}},
    {"RAdam", {"lr", "weight_decay"}, {"eps"}, {"beta1", "beta2"}, {"maximize"}},
    {"Adamax", {"lr", "weight_decay"}, {"eps"}, {"beta1", "beta2"}, {"maximize"}},
    {"Adagrad",
     {"lr", "lr_decay", "weight_decay", "initial_accumulator_value"},
     {"eps"},
     {},
     {"maximize"}},
    {"Adadelta", {"lr", "weight_decay"}, {"eps"}, {"rho"}, {"maximize"}},
    {"RMSprop", {"lr", "weight_decay", "momentum"}, {"eps"}, {"alpha"}, {"centered", "maximize"}},
    {"Rprop", {"lr"}, {"eta_minus", "eta_plus", "step_min", "step_max"}, {}, {"maximize"}},
    {"ASGD", {"lr", "lambd", "alpha", "t0", "weight_decay"}, {}, {}, {"maximize"}},
    {"LAMB", {"lr", "weight_decay"}, {"eps"}, {"beta1", "beta2"}, {"adapt", "maximize"}},
    {"LARS",
     {"lr", "momentum", "weight_decay"},
     {"trust_coefficient", "eps"},
     {},
     {"nesterov", "adapt", "maximize"}},
    {"Lion", {"lr", "weight_decay"}, {}, {"beta1", "beta2"}, {"maximize"}},
};

// That the rule refuses the options by exactly this message, and is as it was before.
::testing::AssertionResult refuses(const std::string& rule, const StateDict& options,
                                   const std::string& message) {
  const auto made = make_rule(rule);
  const StateDict before = made->options();
  try {
    made->set(options);
  } catch (const OptionError& error) {
    if (error.what() != message) return ::testing::AssertionFailure() << error.what();
    if (!bit_equal(before, made->options())) {
      return ::testing::AssertionFailure() << "options changed: " << message;
    }
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "nothing was refused: " << message;
}

TEST(UpdateRuleOptions, are_refused_by_name_outside_their_domain) {
  struct Bad {
    double value;
    std::string text;
  };
  const Bad below{-1, "-1"}, zero{0, "0"}, one{1, "1"}, nan{std::nan(""), "nan"},
      inf{HUGE_VAL, "inf"};
  const auto expect = [](const Domains& of, const std::string& field,
                         const std::string& expectation, const std::vector<Bad>& values) {
    for (const Bad& bad : values) {
      EXPECT_TRUE(refuses(of.rule, {{field, bad.value}},
                          of.rule + ": expected " + expectation + ", found " + bad.text));
    }
  };
  for (const Domains& of : domains) {
    for (const std::string& field : of.non_negative) {
      expect(of, field, field + " >= 0", {below, nan, inf});
      make_rule(of.rule)->set({{field, 0.0}});
    }
    for (const std::string& field : of.positive) {
      expect(of, field, field + " > 0", {below, zero, nan, inf});
    }
    for (const std::string& field : of.fractions) {
      expect(of, field, "0 <= " + field + " < 1", {below, one, nan, inf});
      make_rule(of.rule)->set({{field, 0.0}});
    }
  }
}

TEST(UpdateRuleOptions, of_the_table_above_are_all_there_are) {
  std::set<std::string> rules;
  for (const Domains& of : domains) {
    std::set<std::string> expected, found;
    for (const auto* names : {&of.non_negative, &of.positive, &of.fractions, &of.switches}) {
      expected.insert(names->begin(), names->end());
    }
    for (const auto& [field, value] : make_rule(of.rule)->options()) found.insert(field);
    EXPECT_EQ(found, expected) << of.rule;
    for (const std::string& field : of.switches) make_rule(of.rule)->get(field).as_bool();
    rules.insert(of.rule);
  }
  EXPECT_EQ(rules.size(), default_rules().size());
}

TEST(UpdateRuleOptions, are_refused_where_they_do_not_go_together) {
  EXPECT_TRUE(
      refuses("SGD", {{"nesterov", true}}, "SGD: expected momentum > 0 with nesterov, found 0"));
  EXPECT_TRUE(refuses("SGD", {{"momentum", 0.9}, {"dampening", 0.1}, {"nesterov", true}},
                      "SGD: expected dampening = 0 with nesterov, found 0.1"));
  EXPECT_TRUE(refuses("LARS", {{"momentum", 0.0}, {"nesterov", true}},
                      "LARS: expected momentum > 0 with nesterov, found 0"));
  EXPECT_TRUE(refuses("Rprop", {{"eta_minus", 1.0}}, "Rprop: expected eta_minus < 1, found 1"));
  EXPECT_TRUE(refuses("Rprop", {{"eta_plus", 1.0}}, "Rprop: expected eta_plus > 1, found 1"));
  EXPECT_TRUE(
      refuses("Rprop", {{"step_min", 60.0}}, "Rprop: expected step_min <= step_max, found 60"));
}

template <class Rule, class Options>
void expect_constructor_checks(const std::string& name) {
  Options options;
  options.lr = -1;
  EXPECT_TRUE(throws<OptionError>([&] { Rule{options}; }, name + ": expected lr >= 0, found -1"));
}

TEST(UpdateRuleOptions, are_checked_by_constructors) {
  using namespace optim;
  expect_constructor_checks<SGD, SGDOptions>("SGD");
  expect_constructor_checks<Adam, AdamOptions>("Adam");
  expect_constructor_checks<AdamW, AdamWOptions>("AdamW");
  expect_constructor_checks<NAdam, NAdamOptions>("NAdam");
  expect_constructor_checks<RAdam, RAdamOptions>("RAdam");
  expect_constructor_checks<Adamax, AdamaxOptions>("Adamax");
  expect_constructor_checks<Adagrad, AdagradOptions>("Adagrad");
  expect_constructor_checks<Adadelta, AdadeltaOptions>("Adadelta");
  expect_constructor_checks<RMSprop, RMSpropOptions>("RMSprop");
  expect_constructor_checks<Rprop, RpropOptions>("Rprop");
  expect_constructor_checks<ASGD, ASGDOptions>("ASGD");
  expect_constructor_checks<LAMB, LAMBOptions>("LAMB");
  expect_constructor_checks<LARS, LARSOptions>("LARS");
  expect_constructor_checks<Lion, LionOptions>("Lion");
  EXPECT_TRUE(throws<OptionError>([] { SGD({.nesterov = true}); }, "with nesterov"));
  EXPECT_TRUE(throws<OptionError>([] { Rprop({.eta_plus = 0.9}); }, "eta_plus > 1"));
}

TEST(UpdateRuleOptions, of_an_unknown_name_are_refused_with_the_names_there_are) {
  for (const auto& rule : default_rules()) {
    const std::string name(rule->name());
    std::string known;
    for (const optim::Field& field : rule->fields()) {
      known += (known.empty() ? "" : ", ") + std::string(field.name);
    }
    const std::string message = name + " has no hyper-parameter 'speed'; it has " + known;
    const StateDict before = rule->options();
    EXPECT_TRUE(throws<NameError>([&] { rule->set({{"lr", 0.5}, {"speed", 1.0}}); }, message));
    EXPECT_TRUE(throws<NameError>([&] { static_cast<void>(rule->get("speed")); }, message));
    EXPECT_TRUE(bit_equal(before, rule->options())) << name;
  }
}

TEST(UpdateRuleOptions, of_another_type_are_refused_except_integers_for_numbers) {
  for (const auto& rule : default_rules()) {
    for (const auto& [field, value] : rule->options()) {
      const StateDict before = rule->options();
      const bool is_switch = std::holds_alternative<bool>(value.variant());
      const StateDict wrong{{field, is_switch ? StateValue(1.0) : StateValue(true)}};
      EXPECT_TRUE(throws<StateError>([&] { rule->set(wrong); }, "hyper-parameter '" + field + "'"))
          << rule->name();
      EXPECT_TRUE(bit_equal(before, rule->options())) << rule->name();
    }
    rule->set({{"lr", 2}});
    EXPECT_EQ(rule->get("lr").as_double(), 2) << rule->name();
  }
}

TEST(UpdateRuleOptions, of_a_clone_are_its_own) {
  for (const auto& rule : default_rules()) {
    rule->set({{"lr", 0.25}, {"maximize", true}});
    const StateDict before = rule->options();
    const auto clone = rule->clone();
    EXPECT_EQ(clone->name(), rule->name());
    EXPECT_TRUE(bit_equal(before, clone->options())) << rule->name();
    clone->set({{"lr", 0.5}, {"maximize", false}});
    EXPECT_TRUE(bit_equal(before, rule->options())) << rule->name();
    rule->set({{"lr", 0.75}});
    EXPECT_EQ(clone->get("lr").as_double(), 0.5) << rule->name();
  }
}

}  // namespace update_rule_options_test
}  // namespace lockstep
