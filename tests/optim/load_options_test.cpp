// Reports and options of load_state_dict.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/core/log.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace load_options_test {

using namespace testing;
using optim::Adam;
using optim::SGD;
using Names = std::vector<std::string>;

class LoadOptionsTest : public ::testing::Test {
 protected:
  LoadOptionsTest() {
    set_log_callback([](LogLevel, std::string_view) {});
    train(optimizer_, parameters_, 2);
  }
  ~LoadOptionsTest() override { set_log_callback({}); }

  static Parameter f32(std::uint64_t key) { return Parameter(drawn(key, {3})); }

  // What an optimizer of such parameters has after five steps, with a rate of 0.25.
  static StateDict saved_by(const std::vector<NamedParameter>& parameters,
                            const optim::UpdateRule& rule = Adam()) {
    NamedOptimizer source(parameters, rule);
    source.param_groups()[0].set_lr(0.25);
    train(source, parameters, 5);
    return source.state_dict().clone();
  }

  static const StateDict& state_in(const StateDict& saved, const std::string& name) {
    return saved.at("state").as_dict().at(name).as_dict();
  }

  // That check_load and load_state_dict refuse alike, and nothing changes.
  template <class E, class... Parts>
  ::testing::AssertionResult refused(const StateDict& source, const LoadOptions& options,
                                     const Parts&... parts) {
    const StateDict before = snapshot(optimizer_, parameters_);
    EXPECT_TRUE(throws<E>([&] { optimizer_.check_load(source, options); }, parts...));
    const auto result = throws<E>([&] { optimizer_.load_state_dict(source, options); }, parts...);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer_, parameters_)));
    return result;
  }

  void expect_report(const LoadReport& found, const LoadReport& expected) {
    EXPECT_EQ(found.loaded, expected.loaded);
    EXPECT_EQ(found.kept, expected.kept);
    EXPECT_EQ(found.missing, expected.missing);
    EXPECT_EQ(found.unexpected, expected.unexpected);
  }

  // Loads, after check_load has told the same and changed nothing.
  void load_with_report(const StateDict& source, const LoadOptions& options,
                        const LoadReport& expected) {
    const StateDict before = snapshot(optimizer_, parameters_);
    expect_report(optimizer_.check_load(source, options), expected);
    EXPECT_TRUE(bit_equal(before, snapshot(optimizer_, parameters_)));
    expect_report(optimizer_.load_state_dict(source, options), expected);
  }

  std::vector<NamedParameter> parameters_{
      {"net1.w", f32(1)}, {"net1.b", f32(2)}, {"net2.w", f32(3)}, {"net2.b", f32(4)}};
  NamedOptimizer optimizer_{parameters_, Adam({.lr = 0.1})};
};

TEST_F(LoadOptionsTest, the_report_has_each_name_in_its_list) {
  std::vector<NamedParameter> theirs{
      {"net1.w", f32(5)}, {"net2.b", f32(6)}, {"net2.w", f32(7)}, {"net9.z", f32(8)}};
  NamedOptimizer source(theirs, Adam());
  theirs[1].parameter.set_requires_grad(false);  // known to the source, but without state
  train(source, theirs, 5);
  const StateDict before = snapshot(optimizer_, parameters_).at("optimizer").as_dict();
  load_with_report(source.state_dict(), {},
                   {.loaded = {"net1.w", "net2.w"},
                    .kept = {"net2.b"},
                    .missing = {"net1.b"},
                    .unexpected = {"net9.z"}});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net1.w"), state_of(source, "net1.w")));
  for (const char* name : {"net1.b", "net2.b"}) {
    EXPECT_TRUE(bit_equal(state_of(optimizer_, name), state_in(before, name))) << name;
  }
}

TEST_F(LoadOptionsTest, strict_refuses_names_that_are_missing_or_unexpected_and_lists_them) {
  const StateDict fewer = saved_by({{"net1.w", f32(5)}, {"net2.w", f32(6)}});
  EXPECT_TRUE(
      refused<StateError>(fewer, {.strict = true}, "missing: net1.b, net2.b;", "unexpected: none"));
  std::vector<NamedParameter> more = parameters_;
  more.emplace_back("extra", f32(5));
  more.emplace_back("another", f32(6));
  EXPECT_TRUE(refused<StateError>(saved_by(more), {.strict = true}, "missing: none;",
                                  "unexpected: another, extra"));
  load_with_report(saved_by(parameters_), {.strict = true},
                   {.loaded = {"net1.b", "net1.w", "net2.b", "net2.w"}});
  EXPECT_EQ(optimizer_.param_groups()[0].lr(), 0.25);
}

TEST_F(LoadOptionsTest, a_prefix_loads_a_part_and_leaves_the_rest) {
  std::vector<NamedParameter> theirs = parameters_;
  theirs.emplace_back("net1.x", f32(5));
  theirs.emplace_back("net2.x", f32(6));
  theirs.erase(theirs.begin() + 1);
  const StateDict saved = saved_by(theirs);
  const StateDict before = snapshot(optimizer_, parameters_).at("optimizer").as_dict();
  load_with_report(saved, {.prefix = "net1."},
                   {.loaded = {"net1.w"},
                    .kept = {"net2.b", "net2.w"},
                    .missing = {"net1.b"},
                    .unexpected = {"net1.x"}});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net2.w"), state_in(before, "net2.w")));
  EXPECT_EQ(optimizer_.param_groups()[0].lr(), 0.1);
}

TEST_F(LoadOptionsTest, a_prefix_takes_over_the_groups_that_lie_wholly_in_it) {
  const auto groups = [](double lr) {
    return std::vector<ParamGroupOptions>{{.params = "net1.*", .lr = lr},
                                          {.params = "net2.*", .lr = lr}};
  };
  NamedOptimizer source(parameters_, Adam(), groups(0.5));
  NamedOptimizer target(parameters_, Adam(), groups(0.1));
  target.init_state();
  target.load_state_dict(source.state_dict(), {.prefix = "net1."});
  EXPECT_EQ(target.param_groups()[0].lr(), 0.5);
  EXPECT_EQ(target.param_groups()[1].lr(), 0.1);
}

TEST_F(LoadOptionsTest, strict_applies_to_what_is_under_the_prefix) {
  const StateDict saved = saved_by({{"net1.w", f32(5)}, {"net1.b", f32(6)}, {"other", f32(7)}});
  load_with_report(saved, {.strict = true, .prefix = "net1."},
                   {.loaded = {"net1.b", "net1.w"}, .kept = {"net2.b", "net2.w"}});
  EXPECT_TRUE(refused<StateError>(saved, {.strict = true, .prefix = "net2."},
                                  "missing: net2.b, net2.w; unexpected: none"));
}

TEST_F(LoadOptionsTest, a_prefix_of_nothing_keeps_everything) {
  const StateDict saved = saved_by(parameters_);
  const StateDict before = snapshot(optimizer_, parameters_);
  load_with_report(saved, {.strict = true, .prefix = "net3"},
                   {.kept = {"net1.b", "net1.w", "net2.b", "net2.w"}});
  EXPECT_TRUE(bit_equal(before, snapshot(optimizer_, parameters_)));
}

TEST_F(LoadOptionsTest, names_are_changed_by_a_map) {
  const StateDict saved = saved_by(
      {{"old.weight", f32(5)}, {"net1.b", f32(6)}, {"net2.w", f32(7)}, {"net2.b", f32(8)}});
  load_with_report(saved, {.strict = true, .rename = {{"old.weight", "net1.w"}, {"no", "one"}}},
                   {.loaded = {"net1.b", "net1.w", "net2.b", "net2.w"}});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net1.w"), state_in(saved, "old.weight")));
  // The group is recognised by its new names.
  EXPECT_EQ(optimizer_.param_groups()[0].lr(), 0.25);
}

TEST_F(LoadOptionsTest, a_map_may_exchange_names) {
  const StateDict saved = saved_by(parameters_);
  const std::map<std::string, std::string> exchange{{"net1.w", "net2.w"}, {"net2.w", "net1.w"}};
  optimizer_.load_state_dict(saved, {.strict = true, .rename = exchange});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net1.w"), state_in(saved, "net2.w")));
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net2.w"), state_in(saved, "net1.w")));
}

TEST_F(LoadOptionsTest, an_optimizer_may_load_its_own_state_under_exchanged_names) {
  const StateDict before = optimizer_.state_dict().clone();
  optimizer_.load_state_dict(optimizer_.state_dict(),
                             {.rename = {{"net1.w", "net2.w"}, {"net2.w", "net1.w"}}});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net1.w"), state_in(before, "net2.w")));
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net2.w"), state_in(before, "net1.w")));
}

TEST_F(LoadOptionsTest, names_are_changed_by_a_function_before_the_prefix_is_looked_at) {
  std::vector<NamedParameter> theirs;
  for (const auto& [name, parameter] : parameters_)
    theirs.emplace_back("module." + name, parameter);
  const StateDict saved = saved_by(theirs);
  const auto without_module = [](const std::string& name) { return name.substr(7); };
  load_with_report(saved, {.strict = true, .prefix = "net2.", .rename = without_module},
                   {.loaded = {"net2.b", "net2.w"}, .kept = {"net1.b", "net1.w"}});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net2.w"), state_in(saved, "module.net2.w")));
}

TEST_F(LoadOptionsTest, a_renaming_that_throws_changes_nothing) {
  EXPECT_TRUE(refused<DataError>(
      saved_by(parameters_),
      {.rename = [](const std::string&) -> std::string { throw DataError("no such name"); }},
      "no such name"));
}

TEST_F(LoadOptionsTest, two_names_that_become_one_must_not_differ) {
  std::vector<NamedParameter> theirs = parameters_;
  theirs.emplace_back("old", f32(9));
  StateDict saved = saved_by(theirs);
  EXPECT_TRUE(refused<StateError>(saved, {.rename = {{"old", "net1.w"}}}, "'net1.w'", "'old'",
                                  "are both parameter 'net1.w' here, and differ"));
  saved["state"].as_dict()["old"] = StateValue(state_in(saved, "net1.w"));
  optimizer_.load_state_dict(saved, {.strict = true, .rename = {{"old", "net1.w"}}});
  EXPECT_TRUE(bit_equal(state_of(optimizer_, "net1.w"), state_in(saved, "net1.w")));
}

TEST_F(LoadOptionsTest, two_groups_that_become_one_must_not_differ) {
  std::vector<NamedParameter> one{{"w", f32(1)}}, two{{"w", f32(2)}, {"v", f32(3)}};
  NamedOptimizer source(two, SGD(), {{.params = "w", .lr = 0.3}, {.params = "v", .lr = 0.4}});
  NamedOptimizer target(one, SGD({.lr = 0.1}));
  EXPECT_TRUE(throws<StateError>(
      [&] {
        target.load_state_dict(source.state_dict(), {.rename = {{"v", "w"}}});
      },
      "group", "'w'"));
  EXPECT_EQ(target.param_groups()[0].lr(), 0.1);
  source.param_groups()[1].set_lr(0.3);
  target.load_state_dict(source.state_dict(), {.rename = {{"v", "w"}}});
  EXPECT_EQ(target.param_groups()[0].lr(), 0.3);
}

TEST_F(LoadOptionsTest, dtypes_are_converted_on_request_only) {
  for (const DType theirs : {DType::f32, DType::f64}) {
    const DType ours = theirs == DType::f32 ? DType::f64 : DType::f32;
    const std::vector<NamedParameter> from{{"p", Parameter(drawn(1, {4, 2}, theirs))}};
    const std::vector<NamedParameter> to{{"p", Parameter(drawn(2, {4, 2}, ours))}};
    const StateDict saved = saved_by(from);
    NamedOptimizer target(to, Adam());
    train(target, to, 1);
    const StateDict before = snapshot(target, to);
    EXPECT_TRUE(throws<DTypeError>([&] { target.load_state_dict(saved); },
                                   "state exp_avg of parameter p: expected dtype"));
    EXPECT_TRUE(bit_equal(before, snapshot(target, to)));
    target.load_state_dict(saved, {.convert_dtype = true});
    for (const char* slot : {"exp_avg", "exp_avg_sq"}) {
      EXPECT_TRUE(bit_equal(state_of(target, "p").at(slot).as_tensor(),
                            state_in(saved, "p").at(slot).as_tensor().to(ours)));
    }
    EXPECT_EQ(state_of(target, "p").at("step").as_int(), 5);
  }
}

TEST_F(LoadOptionsTest, conversion_excuses_neither_shapes_nor_integers_nor_holes) {
  const auto with_slot = [this](Tensor tensor) {
    StateDict saved = saved_by(parameters_);
    saved["state"].as_dict()["net2.w"].as_dict()["exp_avg"] = std::move(tensor);
    return saved;
  };
  const LoadOptions convert{.convert_dtype = true};
  EXPECT_TRUE(refused<ShapeError>(with_slot(Tensor::zeros({1}, DType::f64)), convert,
                                  "state exp_avg of parameter net2.w: expected shape (3)"));
  EXPECT_TRUE(refused<DTypeError>(with_slot(Tensor::zeros({3}, DType::i64)), convert,
                                  "state exp_avg of parameter net2.w"));
  EXPECT_TRUE(refused<StateError>(with_slot(Tensor()), convert, "exp_avg", "net2.w"));
}

TEST_F(LoadOptionsTest, conversion_to_numbers_that_overflow_is_refused) {
  StateDict saved = saved_by(parameters_);
  saved["state"].as_dict()["net2.w"].as_dict()["exp_avg"] = Tensor::full({3}, 1e300, DType::f64);
  EXPECT_TRUE(refused<StateError>(saved, {.convert_dtype = true}, "exp_avg", "net2.w"));
}

TEST_F(LoadOptionsTest, an_undefined_tensor_for_f64_is_refused_with_its_name) {
  const std::vector<NamedParameter> parameters{{"p", Parameter(drawn(1, {2}, DType::f64))}};
  NamedOptimizer target(parameters, Adam());
  train(target, parameters, 1);
  StateDict saved = target.state_dict().clone();
  saved["state"].as_dict()["p"].as_dict()["exp_avg"] = Tensor();
  const StateDict before = snapshot(target, parameters);
  EXPECT_TRUE(throws<StateError>([&] { target.load_state_dict(saved, {.convert_dtype = true}); },
                                 "state exp_avg of parameter p"));
  EXPECT_TRUE(bit_equal(before, snapshot(target, parameters)));
}

class TiedParameters : public ::testing::Test {
 protected:
  const Parameter shared_{drawn(1, {2, 2})};
  const Parameter bias_{drawn(2, {2})};
  std::vector<NamedParameter> tied_{{"in.w", shared_}, {"out.w", shared_}, {"out.b", bias_}};
};

TEST_F(TiedParameters, are_one_parameter_with_one_state) {
  NamedOptimizer optimizer(tied_, Adam());
  train(optimizer, {tied_[0], tied_[2]}, 1);
  const StateDict saved = optimizer.state_dict();
  EXPECT_EQ(saved.at("state").as_dict().size(), 2U);
  EXPECT_EQ(state_of(optimizer, "in.w").at("step").as_int(), 1);
  EXPECT_EQ(optimizer.param_groups()[0].names(), (Names{"in.w", "out.b"}));
}

TEST_F(TiedParameters, load_and_restore_under_any_of_their_names) {
  for (const bool by_alias : {false, true}) {
    const std::vector<NamedParameter> source_parameters{
        {by_alias ? "out.w" : "in.w", Parameter(drawn(3, {2, 2}))},
        {"out.b", Parameter(drawn(4, {2}))}};
    NamedOptimizer source(source_parameters, Adam({.lr = 0.5}));
    train(source, source_parameters, 3);
    NamedOptimizer loaded(tied_, Adam());
    loaded.init_state();
    const LoadReport report = loaded.load_state_dict(source.state_dict(), {.strict = true});
    EXPECT_EQ(report.loaded, (Names{"in.w", "out.b"}));
    EXPECT_EQ(loaded.param_groups()[0].lr(), 0.5);
    NamedOptimizer restored(tied_, Adam());
    restored.restore(source.state_dict());
    for (const NamedOptimizer* target : {&loaded, &restored}) {
      EXPECT_TRUE(
          bit_equal(state_of(*target, "in.w"), state_of(source, source_parameters[0].name)));
    }
  }
}

TEST_F(TiedParameters, in_a_source_that_had_two_of_them_must_agree) {
  const std::vector<NamedParameter> apart{{"in.w", Parameter(drawn(3, {2, 2}))},
                                          {"out.w", Parameter(drawn(5, {2, 2}))},
                                          {"out.b", Parameter(drawn(4, {2}))}};
  NamedOptimizer source(apart, Adam());
  train(source, apart, 3);
  NamedOptimizer target(tied_, Adam());
  train(target, {tied_[0], tied_[2]}, 1);
  const StateDict before = target.state_dict().clone();
  EXPECT_TRUE(throws<StateError>([&] { target.load_state_dict(source.state_dict()); },
                                 "'in.w' and 'out.w' of the state dict are both parameter 'in.w'"));
  EXPECT_TRUE(throws<StateError>([&] { target.restore(source.state_dict()); }, "'out.w'"));
  EXPECT_TRUE(bit_equal(before, target.state_dict()));
}

TEST_F(LoadOptionsTest, names_the_groups_that_keep_their_hyper_parameters) {
  const Parameter a = f32(1), b = f32(2);
  const std::vector<NamedParameter> both{{"a", a}, {"b", b}};
  NamedOptimizer optimizer(both, Adam(),
                           {{.params = "a", .name = "first"}, {.params = "b", .name = "second"}});
  train(optimizer, both, 1);
  EXPECT_EQ(optimizer.load_state_dict(saved_by({{"a", f32(3)}, {"b", f32(4)}})).kept_groups,
            (Names{"first", "second"}));
  EXPECT_EQ(optimizer.load_state_dict(saved_by({{"b", f32(4)}})).kept_groups, Names{"first"});
  EXPECT_EQ(optimizer.param_group("first").lr(), Adam().get("lr").as_double());
  EXPECT_EQ(optimizer.param_group("second").lr(), 0.25);
}

}  // namespace load_options_test
}  // namespace lockstep
