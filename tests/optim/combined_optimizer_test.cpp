#include "lockstep/optim/combined_optimizer.hpp"

#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {
namespace combined_optimizer_test {

using namespace testing;
using optim::Adam;
using optim::SGD;
using Names = std::vector<std::string>;

// "a" and "b" under Adam as "dense", "c" and "d" under SGD as "rest".
struct Pair {
  explicit Pair(const std::string& first = "dense", const std::string& second = "rest")
      : combined({{first, adam}, {second, sgd}}) {}

  void train(std::uint64_t steps, std::uint64_t first = 0) {
    testing::train(combined, parameters, steps, first);
  }
  StateDict snapshot() const { return testing::snapshot(combined, parameters); }

  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer adam{{parameters[0], parameters[1]}, Adam({.lr = 0.1})};
  NamedOptimizer sgd{{parameters[2], parameters[3]}, SGD({.lr = 0.2, .momentum = 0.9})};
  CombinedOptimizer combined;
};

class Combined : public ::testing::Test {
 protected:
  Combined() {
    set_log_callback([](LogLevel, std::string_view) {});
    pair_.train(2);
  }
  ~Combined() override { set_log_callback({}); }

  static StateDict saved() {
    Pair source;
    source.adam.param_groups()[0].set_lr(0.25);
    source.train(5);
    return source.combined.state_dict().clone();
  }

  template <class E, class... Parts>
  ::testing::AssertionResult load_refused(const StateDict& source, const LoadOptions& options,
                                          const Parts&... parts) {
    const StateDict before = pair_.snapshot();
    EXPECT_TRUE(throws<E>([&] { pair_.combined.check_load(source, options); }, parts...));
    const auto result =
        throws<E>([&] { pair_.combined.load_state_dict(source, options); }, parts...);
    EXPECT_TRUE(bit_equal(before, pair_.snapshot()));
    return result;
  }

  template <class E, class... Parts>
  ::testing::AssertionResult restore_refused(const StateDict& source, const Parts&... parts) {
    const StateDict before = pair_.snapshot();
    EXPECT_TRUE(throws<E>([&] { pair_.combined.check_restore(source); }, parts...));
    const auto result = throws<E>([&] { pair_.combined.restore(source); }, parts...);
    EXPECT_TRUE(bit_equal(before, pair_.snapshot()));
    return result;
  }

  Pair pair_;
};

TEST_F(Combined, trains_as_its_members_by_themselves_to_the_bit) {
  Pair apart;
  for (std::uint64_t step = 0; step < 2; ++step) {
    train(apart.adam, {apart.parameters[0], apart.parameters[1]}, 1, step);
    set_gradients(apart.parameters, step);
    apart.sgd.step();
  }
  EXPECT_TRUE(bit_equal(pair_.snapshot(), apart.snapshot()));
}

TEST_F(Combined, names_everything_by_prefix_and_name) {
  EXPECT_EQ(pair_.combined.group_names(), (Names{"dense.0", "rest.0"}));
  EXPECT_EQ(&pair_.combined.param_group("rest.0"), &pair_.sgd.param_groups()[0]);
  EXPECT_TRUE(throws<NameError>([&] { pair_.combined.param_group("0"); }, "dense.0, rest.0"));
  Names known, visited;
  for (const NamedParameter& named : pair_.combined.named_parameters()) known.push_back(named.name);
  pair_.combined.visit_parameters([&](const NamedParameter& n) { visited.push_back(n.name); });
  EXPECT_EQ(known, (Names{"dense.a", "dense.b", "rest.c", "rest.d"}));
  EXPECT_EQ(visited, known);

  const StateDict state = pair_.combined.state_dict();
  Names keys;
  for (const auto& [name, slots] : state.at("state").as_dict()) keys.push_back(name);
  EXPECT_EQ(keys, known);
  EXPECT_EQ(state.at("rule").as_dict().at("dense").as_string(), "Adam");
  const StateDict& group = state.at("param_groups").as_list()[1].as_dict();
  EXPECT_EQ(group.at("name").as_string(), "rest.0");
  EXPECT_EQ(group.at("params").as_list()[0].as_string(), "rest.c");
}

TEST_F(Combined, of_an_empty_prefix_has_names_as_they_are) {
  Pair plain("", "rest");
  plain.train(1);
  EXPECT_FALSE(state_of(plain.combined, "a").empty());
  EXPECT_FALSE(state_of(plain.combined, "rest.c").empty());
  EXPECT_EQ(plain.combined.group_names(), (Names{"0", "rest.0"}));
  Pair other("", "rest");
  other.combined.restore(plain.combined.state_dict());
  EXPECT_TRUE(bit_equal(plain.combined.state_dict(), other.combined.state_dict()));
  other.combined.load_state_dict(plain.combined.state_dict(), {.strict = true});
  EXPECT_TRUE(bit_equal(plain.combined.state_dict(), other.combined.state_dict()));
}

TEST_F(Combined, refuses_duplicates_and_nothing) {
  EXPECT_TRUE(throws<OptionError>([] { CombinedOptimizer({}); }, "got no optimizers"));
  EXPECT_TRUE(
      throws<NameError>([] { Pair("same", "same"); }, "two optimizers have the prefix 'same'"));
  NamedOptimizer one({{"b.c", pair_.parameters[0].parameter}}, SGD());
  NamedOptimizer other({{"c", pair_.parameters[1].parameter}}, SGD());
  EXPECT_TRUE(throws<NameError>(
      [&] {
        CombinedOptimizer({{"a", one}, {"a.b", other}});
      },
      "Duplicate param key a.b.c"));
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        CombinedOptimizer({{"x", one}, {"y", one}});
      },
      "'x'", "'y'"));
}

TEST_F(Combined, with_a_prefix_that_begins_another_finds_each_name_in_its_member) {
  const auto make = [](std::uint64_t key) {
    return std::vector<NamedParameter>{{"head.w", Parameter(drawn(key, {3}))},
                                       {"b", Parameter(drawn(key + 1, {2}))}};
  };
  for (const std::string& prefix : {std::string("net"), std::string()}) {
    const std::string longer = prefix.empty() ? "head" : "net.head";
    std::vector<NamedParameter> p = make(1), q = make(3);
    NamedOptimizer a({p[0]}, Adam()), b({p[1]}, Adam()), c({q[0]}, Adam()), d({q[1]}, Adam());
    CombinedOptimizer source({{prefix, a}, {longer, b}}), target({{prefix, c}, {longer, d}});
    train(source, p, 2);
    train(target, q, 1);
    target.load_state_dict(source.state_dict(), {.strict = true});
    EXPECT_TRUE(bit_equal(source.state_dict(), target.state_dict()));
    train(source, p, 1, 5);
    target.restore(source.state_dict());
    EXPECT_TRUE(bit_equal(source.state_dict(), target.state_dict()));
  }
}

TEST_F(Combined, loads_with_a_report_of_all_members) {
  const StateDict source = saved();
  const LoadReport report = pair_.combined.load_state_dict(source, {.strict = true});
  EXPECT_EQ(report.loaded, (Names{"dense.a", "dense.b", "rest.c", "rest.d"}));
  EXPECT_TRUE(bit_equal(source, pair_.combined.state_dict()));
  EXPECT_EQ(pair_.adam.param_groups()[0].lr(), 0.25);
}

TEST_F(Combined, loads_parts_by_prefix_and_under_other_names) {
  const StateDict before = pair_.combined.state_dict().clone();
  StateDict source = saved();
  source["state"].as_dict()["lost"] = source.at("state").as_dict().at("dense.a");
  source["state"].as_dict()["dense.x"] = source.at("state").as_dict().at("dense.a");
  LoadReport report = pair_.combined.load_state_dict(source, {.prefix = "dense."});
  EXPECT_EQ(report.loaded, (Names{"dense.a", "dense.b"}));
  EXPECT_EQ(report.kept, (Names{"rest.c", "rest.d"}));
  EXPECT_EQ(report.missing, Names());
  EXPECT_EQ(report.unexpected, Names{"dense.x"});
  EXPECT_TRUE(bit_equal(state_of(pair_.combined, "rest.c"),
                        before.at("state").as_dict().at("rest.c").as_dict()));
  EXPECT_EQ(pair_.combined.check_load(source, {}).unexpected, (Names{"lost", "dense.x"}));
  EXPECT_TRUE(
      load_refused<StateError>(source, {.strict = true}, "unexpected: ", "lost", "dense.x"));

  Pair old("old", "rest");
  old.train(4);
  report = pair_.combined.load_state_dict(
      old.combined.state_dict(), {.strict = true, .rename = [](const std::string& name) {
                                    return name.starts_with("old.") ? "dense" + name.substr(3)
                                                                    : name;
                                  }});
  EXPECT_EQ(report.loaded.size(), 4U);
  EXPECT_TRUE(bit_equal(state_of(pair_.combined, "dense.a"), state_of(old.combined, "old.a")));
}

TEST_F(Combined, takes_over_what_one_optimizer_had_by_renaming) {
  std::vector<NamedParameter> p = small_parameters();
  NamedOptimizer one({p[0], p[1]}, Adam({.lr = 0.5}));
  train(one, {p[0], p[1]}, 4);
  const LoadReport report = pair_.combined.load_state_dict(
      one.state_dict(), {.rename = [](const std::string& name) { return "dense." + name; }});
  EXPECT_EQ(report.loaded, (Names{"dense.a", "dense.b"}));
  EXPECT_EQ(report.missing, (Names{"rest.c", "rest.d"}));
  EXPECT_TRUE(bit_equal(state_of(pair_.combined, "dense.b"), state_of(one, "b")));
  EXPECT_EQ(pair_.adam.param_groups()[0].lr(), 0.5);
}

TEST_F(Combined, refuses_two_names_that_become_one_and_differ) {
  StateDict source = saved();
  StateDict& states = source["state"].as_dict();
  states["other"] = states.at("dense.b").clone();
  states["other"].as_dict()["exp_avg"].as_tensor().fill(1);
  EXPECT_TRUE(load_refused<StateError>(source, {.rename = {{"other", "dense.b"}}}, "dense.b"));
  EXPECT_TRUE(load_refused<StateError>(
      source, {.rename = {{"dense.b", "dense.b"}, {"other", "dense.b"}}}, "other"));
}

TEST_F(Combined, reports_what_the_source_lacks) {
  NamedOptimizer only({pair_.parameters[0]}, Adam());
  CombinedOptimizer source({{"dense", only}});
  train(source, pair_.parameters, 1);
  const LoadReport report = pair_.combined.check_load(source.state_dict(), {});
  EXPECT_EQ(report.loaded, Names{"dense.a"});
  EXPECT_EQ(report.missing, (Names{"dense.b", "rest.c", "rest.d"}));
  EXPECT_TRUE(load_refused<StateError>(source.state_dict(), {.strict = true},
                                       "missing: dense.b, rest.c, rest.d"));
}

TEST_F(Combined, takes_over_no_group_that_is_another_set_of_parameters) {
  for (const char* stranger : {"nobody.x", "dense.x", "rest.c"}) {
    StateDict source = saved();
    StateDict& group = source["param_groups"].as_list()[0].as_dict();
    group["params"].as_list().emplace_back(stranger);
    pair_.adam.param_groups()[0].set_lr(0.125);
    pair_.combined.load_state_dict(source);
    EXPECT_EQ(pair_.adam.param_groups()[0].lr(), 0.125) << stranger;
    EXPECT_TRUE(restore_refused<StateError>(source));
  }
}

TEST_F(Combined, loads_and_restores_in_all_members_or_none) {
  StateDict source = saved();
  source["state"].as_dict()["rest.d"].as_dict()["momentum_buffer"] = Tensor::zeros({1}, DType::f64);
  EXPECT_TRUE(load_refused<ShapeError>(source, {}, "momentum_buffer"));
  EXPECT_TRUE(restore_refused<ShapeError>(source, "momentum_buffer"));
  source = saved();
  source["param_groups"].as_list()[1].as_dict()["momentum"] = -1.0;
  EXPECT_TRUE(load_refused<OptionError>(source, {}, "SGD: expected momentum >= 0"));
  EXPECT_TRUE(restore_refused<OptionError>(source, "SGD: expected momentum >= 0"));
}

TEST_F(Combined, wants_all_members_initialized_before_a_load) {
  Pair fresh;
  fresh.adam.init_state();
  const StateDict before = fresh.snapshot();
  EXPECT_TRUE(throws<StateError>([&] { fresh.combined.load_state_dict(saved()); },
                                 "Expects the optim to be initialized"));
  EXPECT_TRUE(bit_equal(before, fresh.snapshot()));
  fresh.combined.init_state();
  fresh.combined.load_state_dict(saved());
  EXPECT_TRUE(bit_equal(saved(), fresh.combined.state_dict()));
}

TEST_F(Combined, restores_what_it_saved_and_goes_on_to_the_same_bits) {
  Pair other, whole;
  other.combined.restore(pair_.combined.state_dict());
  EXPECT_TRUE(bit_equal(other.combined.state_dict(), pair_.combined.state_dict()));
  for (std::size_t i = 0; i < other.parameters.size(); ++i) {
    other.parameters[i].parameter.mutable_value().copy_from(pair_.parameters[i].parameter.value());
  }
  whole.train(5);
  other.train(3, 2);
  EXPECT_TRUE(bit_equal(whole.snapshot(), other.snapshot()));
}

TEST_F(Combined, refuses_to_restore_the_state_of_others) {
  StateDict source = saved();
  source["rule"].as_dict()["third"] = "Adam";
  EXPECT_TRUE(restore_refused<StateError>(source, "an optimizer 'third', which is not here"));
  source = saved();
  source["rule"] = StateDict{{"dense", "Adam"}};
  EXPECT_TRUE(restore_refused<StateError>(source, "lacks the optimizer 'rest'"));
  source = saved();
  source["rule"].as_dict()["dense"] = "AdamW";
  EXPECT_TRUE(restore_refused<StateError>(source, "the state is of AdamW, this optimizer is Adam"));
  source = saved();
  source["state"].as_dict()["lost"] = StateDict();
  EXPECT_TRUE(restore_refused<StateError>(source, "'lost', which no optimizer has"));
  EXPECT_TRUE(restore_refused<StateError>(pair_.adam.state_dict(), "a dict"));
  EXPECT_TRUE(restore_refused<NameError>(StateDict(), "'rule'"));
}

TEST_F(Combined, is_saved_in_checkpoints) {
  const SharedFolder folder;
  for (const char* prefix : {"dense", ""}) {
    Pair source(prefix, "rest"), target(prefix, "rest");
    source.train(3);
    checkpoint::save(folder / "c", world(), {{"optimizer", source.combined}});
    checkpoint::load(folder / "c", world(), {{"optimizer", target.combined}});
    EXPECT_TRUE(bit_equal(source.combined.state_dict(), target.combined.state_dict()));
  }
  Pair other("other", "rest");
  EXPECT_THROW(checkpoint::load(folder / "c", world(), {{"optimizer", other.combined}}),
               CheckpointError);
}

TEST_F(Combined, adds_a_group_to_the_member_that_has_its_parameters) {
  std::vector<NamedParameter> p = small_parameters();
  NamedOptimizer adam({p[0], p[1]}, Adam(), {{.params = "a"}});
  NamedOptimizer sgd({p[2], p[3]}, SGD(), {{.params = "c"}});
  CombinedOptimizer combined({{"dense", adam}, {"rest", sgd}});
  const StateDict before = snapshot(combined, p);
  EXPECT_TRUE(throws<OptionError>(
      [&] {
        combined.add_param_group({.params = {p[1].parameter, p[3].parameter}});
      },
      "a param group must be of one optimizer: 'dense.b' and 'rest.d' are of two"));
  EXPECT_THROW(combined.add_param_group({.params = Parameter(Tensor::zeros({1}))}), NameError);
  EXPECT_THROW(combined.add_param_group({.params = "dense.a"}), NameError);
  EXPECT_THROW(combined.add_param_group({.params = "rest.d", .lr = -1}), OptionError);
  EXPECT_TRUE(bit_equal(before, snapshot(combined, p)));
  combined.add_param_group({.params = "rest.d", .lr = 0.7, .name = "rest.slow"});
  combined.add_param_group({.params = p[1].parameter, .name = "quick"});
  EXPECT_EQ(combined.group_names(), (Names{"dense.0", "dense.quick", "rest.0", "rest.slow"}));
  EXPECT_EQ(combined.param_group("rest.slow").lr(), 0.7);
  EXPECT_TRUE(combined.contains(p[3].parameter));
}

TEST_F(Combined, of_combined_ones_is_one_too) {
  Pair source, target;
  NamedOptimizer extra({{"e", Parameter(drawn(9, {2}))}}, SGD());
  NamedOptimizer extra2({{"e", Parameter(drawn(9, {2}))}}, SGD());
  CombinedOptimizer outer({{"in", source.combined}, {"x", extra}});
  CombinedOptimizer outer2({{"in", target.combined}, {"x", extra2}});
  train(outer, source.parameters, 3);
  EXPECT_EQ(state_of(outer, "in.dense.a").at("step").as_int(), 3);
  EXPECT_EQ(outer.group_names(), (Names{"in.dense.0", "in.rest.0", "x.0"}));
  outer2.restore(outer.state_dict());
  EXPECT_TRUE(bit_equal(outer.state_dict(), outer2.state_dict()));
  train(outer, source.parameters, 1, 3);
  const LoadReport report = outer2.load_state_dict(outer.state_dict(), {.strict = true});
  EXPECT_EQ(report.loaded, (Names{"in.dense.a", "in.dense.b", "in.rest.c", "in.rest.d"}));
  EXPECT_EQ(report.kept, Names{"x.e"});
  EXPECT_TRUE(bit_equal(outer.state_dict(), outer2.state_dict()));
}

TEST(CombinedOfOneRule, may_load_views_of_its_own_under_exchanged_names) {
  std::vector<NamedParameter> parameters{{"w", Parameter(drawn(1, {3}))},
                                         {"w", Parameter(drawn(2, {3}))}};
  NamedOptimizer a({parameters[0]}, Adam()), b({parameters[1]}, Adam());
  CombinedOptimizer combined({{"a", a}, {"b", b}});
  train(combined, parameters, 2);
  const StateDict before = combined.state_dict().clone();
  combined.load_state_dict(combined.state_dict(), {.rename = {{"a.w", "b.w"}, {"b.w", "a.w"}}});
  const StateDict& states = before.at("state").as_dict();
  EXPECT_TRUE(bit_equal(state_of(combined, "a.w"), states.at("b.w").as_dict()));
  EXPECT_TRUE(bit_equal(state_of(combined, "b.w"), states.at("a.w").as_dict()));
}

TEST_F(Combined, groups_of_the_same_name_are_refused) {
  NamedOptimizer plain({{"p", Parameter(drawn(1, {3}))}}, SGD(),
                       {{.params = "p", .name = "dense.0"}});
  EXPECT_TRUE(throws<NameError>(
      [&] {
        CombinedOptimizer({{"dense", pair_.adam}, {"", plain}});
      },
      "two param groups are called 'dense.0'"));
}

}  // namespace combined_optimizer_test
}  // namespace lockstep
