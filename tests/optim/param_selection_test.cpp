// How groups choose their parameters.

#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/dummy_model.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace param_selection_test {

using namespace testing;
using optim::SGD;
using Names = std::vector<std::string>;

class ParamSelection : public ::testing::Test {
 protected:
  ParamSelection() {
    set_log_callback([](LogLevel, std::string_view) {});
  }
  ~ParamSelection() override { set_log_callback({}); }

  Names selected(const ParameterSelection& selection) const {
    Names names;
    for (const NamedParameter& named : selection.select(known_)) names.push_back(named.name);
    return names;
  }

  NamedOptimizer optimizer_of(const std::vector<ParamGroupOptions>& groups) const {
    return NamedOptimizer(known_, SGD({.lr = 0.1, .momentum = 0.9}), groups);
  }

  // That the group is refused after a first one of net1, and changes nothing.
  template <class E, class... Parts>
  ::testing::AssertionResult refused(const ParamGroupOptions& group, const Parts&... parts) const {
    NamedOptimizer optimizer = optimizer_of({{.params = "net1.*", .name = "first"}});
    const StateDict before = snapshot(optimizer, known_);
    const auto result = throws<E>([&] { optimizer.add_param_group(group); }, parts...);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer, known_)));
    EXPECT_EQ(optimizer.group_names(), Names{"first"});
    for (const NamedParameter& named : known_) {
      EXPECT_EQ(optimizer.contains(named.parameter), named.name.starts_with("net1."));
    }
    optimizer.add_param_group({.params = {"net[234].*"}, .name = "second"});
    return result;
  }

  DummyModel model_;
  std::vector<NamedParameter> known_ = model_.named_parameters();
};

TEST_F(ParamSelection, stars_reach_across_dots) {
  EXPECT_EQ(selected("net1.*"), (Names{"net1.0.weight", "net1.0.bias"}));
  EXPECT_EQ(selected("*.bias"), (Names{"net1.0.bias", "net2.0.bias", "net3.bias", "net4.1.bias"}));
  EXPECT_EQ(selected("n*t"),
            (Names{"net1.0.weight", "net2.0.weight", "net3.weight", "net4.1.weight"}));
  EXPECT_EQ(selected("*").size(), known_.size());
}

TEST_F(ParamSelection, question_marks_are_one_character_and_dots_too) {
  EXPECT_EQ(selected("net?.weight"), Names{"net3.weight"});
  EXPECT_EQ(selected("net2?0?bias"), Names{"net2.0.bias"});
}

TEST_F(ParamSelection, brackets_are_one_of_a_set_a_range_or_its_complement) {
  EXPECT_EQ(selected("net[13]*.bias"), (Names{"net1.0.bias", "net3.bias"}));
  EXPECT_EQ(selected("net[2-4]*.bias"), (Names{"net2.0.bias", "net3.bias", "net4.1.bias"}));
  EXPECT_EQ(selected("net[!1]*.bias"), (Names{"net2.0.bias", "net3.bias", "net4.1.bias"}));
}

TEST_F(ParamSelection, globs_match_whole_names) {
  EXPECT_THROW(selected("net3"), NameError);
  EXPECT_THROW(selected("weight"), NameError);
  EXPECT_EQ(selected("net3.weight"), Names{"net3.weight"});
}

TEST_F(ParamSelection, a_name_stands_for_itself_whatever_it_is_made_of) {
  const std::vector<NamedParameter> odd{{"layer[0].w*", Parameter(Tensor::zeros({1}))},
                                        {"layer0.wide", Parameter(Tensor::zeros({1}))},
                                        {"back\\slash", Parameter(Tensor::zeros({1}))}};
  for (const std::size_t i : {std::size_t{0}, std::size_t{2}}) {
    const auto found = ParameterSelection(odd[i].name).select(odd);
    ASSERT_EQ(found.size(), 1U) << odd[i].name;
    EXPECT_EQ(found[0].name, odd[i].name);
  }
}

TEST_F(ParamSelection, a_glob_that_matches_nothing_is_an_error_that_lists_the_names) {
  EXPECT_TRUE(refused<NameError>({.params = "net9.*"}, "no parameter has a name like 'net9.*'",
                                 "net1.0.weight, net1.0.bias", "net4.1.bias"));
  // Not only where nothing at all is selected.
  EXPECT_TRUE(refused<NameError>({.params = {"net2.*", "net5.*"}},
                                 "no parameter has a name like 'net5.*'"));
  EXPECT_TRUE(refused<NameError>({.params = ""}, "no parameter has a name like ''"));
  EXPECT_TRUE(refused<NameError>({.params = "net["}, "no parameter has a name like 'net['"));
  std::vector<NamedParameter> many;
  for (int i = 0; i < 20; ++i) {
    many.emplace_back("p" + std::to_string(i), Parameter(Tensor::zeros({1})));
  }
  EXPECT_TRUE(throws<NameError>([&] { ParameterSelection("q").select(many); },
                                "p0, p1, p2, p3, p4, p5, p6, p7 and 12 more"));
}

TEST_F(ParamSelection, lists_of_globs_select_each_parameter_once_in_the_order_of_the_model) {
  EXPECT_EQ(selected({"net3.*", "net1.*"}),
            (Names{"net1.0.weight", "net1.0.bias", "net3.weight", "net3.bias"}));
  EXPECT_EQ(selected({"*.bias", "net1.*", "*bias"}),
            (Names{"net1.0.weight", "net1.0.bias", "net2.0.bias", "net3.bias", "net4.1.bias"}));
  EXPECT_EQ(selected(std::vector<std::string>{"net3.bias", "net2.0.bias"}),
            (Names{"net2.0.bias", "net3.bias"}));
}

TEST_F(ParamSelection, modules_and_parameters_select_in_the_order_given) {
  EXPECT_EQ(selected(model_.net1.parameters()), (Names{"net1.0.weight", "net1.0.bias"}));
  EXPECT_EQ(selected(model_.net3.named_parameters()), (Names{"net3.weight", "net3.bias"}));
  EXPECT_EQ(selected({known_[5].parameter, known_[0].parameter}),
            (Names{known_[5].name, known_[0].name}));
  EXPECT_EQ(selected(known_[2].parameter), Names{known_[2].name});
}

TEST_F(ParamSelection, predicates_see_names_and_parameters) {
  const auto is_matrix = [](const NamedParameter& named) {
    return named.parameter.shape().rank() == 2;
  };
  EXPECT_EQ(selected(is_matrix),
            (Names{"net1.0.weight", "net2.0.weight", "net3.weight", "net4.1.weight"}));
  const ParameterSelection::Predicate named_net2 = [](const NamedParameter& named) {
    return named.name.starts_with("net2");
  };
  EXPECT_EQ(selected(named_net2), (Names{"net2.0.weight", "net2.0.bias"}));
  EXPECT_TRUE(refused<OptionError>({.params = [](const NamedParameter&) { return false; }},
                                   "the param group has no parameters"));
}

TEST_F(ParamSelection, empty_selections_are_refused) {
  EXPECT_TRUE(refused<OptionError>({.params = {}}, "the param group has no parameters"));
  EXPECT_TRUE(refused<OptionError>({.params = std::vector<Parameter>()}, "has no parameters"));
  EXPECT_TRUE(refused<OptionError>({.params = std::vector<std::string>()}, "has no parameters"));
  EXPECT_TRUE(
      refused<OptionError>({.params = ParameterSelection::Predicate()}, "has no parameters"));
}

TEST_F(ParamSelection, groups_that_overlap_are_refused_by_the_name_of_the_parameter) {
  EXPECT_TRUE(refused<NameError>({.params = "*.bias"},
                                 "parameter 'net1.0.bias' appears in more than one param group"));
  EXPECT_TRUE(refused<NameError>({.params = [](const NamedParameter&) { return true; }},
                                 "parameter 'net1.0.weight' appears in more than one"));
  EXPECT_TRUE(throws<NameError>(
      [&] {
        optimizer_of({{.params = "net3.*"}, {.params = model_.net3.parameters()}});
      },
      "parameter 'net3.weight' appears in more than one param group"));
}

TEST_F(ParamSelection, each_group_trains_by_its_own_hyper_parameters) {
  NamedOptimizer optimizer =
      optimizer_of({{.params = "net1.*", .lr = 0.5},
                    {.params = model_.net2.parameters(), .fields = {{"momentum", 0.0}}},
                    {.params = [](const NamedParameter& n) { return n.name == "net3.bias"; },
                     .fields = {{"maximize", true}}}});
  for (const NamedParameter& named : known_) Parameter(named.parameter).mutable_value().fill(1);
  for (const NamedParameter& named : known_) Parameter(named.parameter).mutable_grad().fill(1);
  optimizer.step();
  optimizer.step();
  const auto value = [this](std::size_t i) { return known_[i].parameter.value().data<float>()[0]; };
  EXPECT_FLOAT_EQ(value(0), 1 - 0.5F * (1 + 1.9F));
  EXPECT_FLOAT_EQ(value(3), 1 - 0.1F * 2);
  EXPECT_EQ(value(4), 1);  // in no group
  EXPECT_FLOAT_EQ(value(5), 1 + 0.1F * (1 + 1.9F));
}

TEST_F(ParamSelection, groups_are_found_by_name_and_by_number_otherwise) {
  NamedOptimizer optimizer =
      optimizer_of({{.params = "net1.*"}, {.params = "net2.*", .name = "x"}});
  optimizer.add_param_group({.params = "net3.*", .lr = 0.7});
  EXPECT_EQ(optimizer.group_names(), (Names{"0", "x", "2"}));
  EXPECT_EQ(&optimizer.param_group("x"), &optimizer.param_groups()[1]);
  EXPECT_EQ(optimizer.param_group("2").lr(), 0.7);
  EXPECT_TRUE(throws<NameError>([&] { optimizer.param_group("1"); }, "no param group is called '1'",
                                "0, x, 2"));
  const StateDict saved = optimizer.state_dict();
  EXPECT_EQ(saved.at("param_groups").as_list()[1].as_dict().at("name").as_string(), "x");
}

TEST_F(ParamSelection, group_names_are_unique) {
  EXPECT_TRUE(refused<NameError>({.params = "net2.*", .name = "first"},
                                 "two param groups are called 'first'"));
  EXPECT_TRUE(throws<NameError>(
      [&] {
        optimizer_of({{.params = "net1.*", .name = "x"}, {.params = "net2.*", .name = "x"}});
      },
      "two param groups are called 'x'"));
}

TEST_F(ParamSelection, a_group_without_a_name_gets_one_that_is_free) {
  NamedOptimizer optimizer = optimizer_of({{.params = "net1.*", .name = "1"}});
  optimizer.add_param_group({.params = "net2.*"});
  const Names names = optimizer.group_names();
  EXPECT_EQ(names[0], "1");
  EXPECT_NE(names[1], "1");
}

TEST_F(ParamSelection, hyper_parameters_named_twice_or_wrongly_are_refused) {
  EXPECT_TRUE(refused<NameError>({.params = "net2.*", .fields = {{"rate", 0.1}}},
                                 "SGD has no hyper-parameter 'rate'"));
  EXPECT_TRUE(refused<OptionError>({.params = "net2.*", .fields = {{"momentum", -0.1}}},
                                   "SGD: expected momentum >= 0"));
}

TEST_F(ParamSelection,
       tied_parameters_are_chosen_by_the_parameter_or_a_name_but_a_glob_of_the_first) {
  const Parameter shared(Tensor::zeros({2}));
  const std::vector<NamedParameter> tied{
      {"encoder.w", shared}, {"decoder.w", shared}, {"decoder.b", Parameter(Tensor::zeros({2}))}};
  NamedOptimizer by_name(tied, SGD(), {{.params = "encoder.*"}, {.params = "decoder.*"}});
  EXPECT_EQ(by_name.param_groups()[0].names(), Names{"encoder.w"});
  EXPECT_EQ(by_name.param_groups()[1].names(), Names{"decoder.b"});
  NamedOptimizer by_alias(tied, SGD(), {{.params = {"decoder.w", "decoder.b"}}});
  EXPECT_EQ(by_alias.param_groups()[0].names(), (Names{"decoder.b", "encoder.w"}));
  NamedOptimizer by_parameter(tied, SGD(), {{.params = shared}});
  EXPECT_EQ(by_parameter.param_groups()[0].names(), Names{"encoder.w"});
}

}  // namespace param_selection_test
}  // namespace lockstep
