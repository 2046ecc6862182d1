#include "lockstep/optim/moving_average.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/gradient_reducer.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "optim/small_parameters.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2);

namespace lockstep {
namespace moving_average_test {

using namespace testing;
using optim::Adam;
using optim::SGD;

using Average = ExponentialMovingAverage;

StateDict values(const std::vector<NamedParameter>& parameters) {
  StateDict copies;
  for (const auto& [name, parameter] : parameters) copies[name] = parameter.value().clone();
  return copies;
}

Parameter number(double value) { return Parameter(Tensor::full({2}, value, DType::f64)); }
double first(const Tensor& tensor) { return tensor.data<double>()[0]; }

TEST(MovingAverage, starts_from_the_values_and_follows_the_closed_form) {
  Parameter p = number(3);
  Average average({{"p", p}}, {.decay = 0.75});
  EXPECT_EQ(first(average.average("p")), 3);
  p.mutable_value().fill(1);
  EXPECT_EQ(first(average.average("p")), 3);
  for (int n = 1; n <= 20; ++n) {
    average.update();
    // Towards a value that stays: value + decayⁿ · (start - value).
    EXPECT_NEAR(first(average.average("p")), 1 + std::pow(0.75, n) * 2, 1e-14);
    EXPECT_EQ(average.updates(), n);
  }
  EXPECT_EQ(first(p.value()), 1);
}

TEST(MovingAverage, weighs_each_value_by_its_age) {
  Parameter p = number(0);
  Average average({{"p", p}}, {.decay = 0.9});
  double expected = 0;
  for (int n = 1; n <= 10; ++n) {
    p.mutable_value().fill(n);
    average.update();
    expected += 0.1 * std::pow(0.9, 10 - n) * n;
  }
  EXPECT_NEAR(first(average.average("p")), expected, 1e-13);
}

TEST(MovingAverage, of_decay_zero_is_the_value) {
  Parameter p = number(3);
  Average average({{"p", p}}, {.decay = 0});
  p.mutable_value().fill(0.1);
  average.update();
  EXPECT_NEAR(first(average.average("p")), 0.1, 1e-15);
}

TEST(MovingAverage, warms_up_by_the_number_of_updates) {
  Parameter p = number(0);
  Average average({{"p", p}}, {.decay = 0.5, .warm_up = true});
  p.mutable_value().fill(1);
  double expected = 0;
  for (int n = 1; n <= 20; ++n) {
    average.update();
    const double decay = std::min(0.5, (1.0 + n) / (10.0 + n));
    expected = decay * expected + (1 - decay);
    EXPECT_NEAR(first(average.average("p")), expected, 1e-14) << n;
  }
}

TEST(MovingAverage, of_each_dtype_and_size_is_of_all_its_numbers) {
  std::vector<NamedParameter> parameters = small_parameters();
  Average average(parameters, {.decay = 0.5});
  const StateDict before = values(parameters);
  for (NamedParameter& named : parameters) named.parameter.mutable_value().fill(4);
  average.update();
  for (const auto& [name, parameter] : parameters) {
    const Tensor found = average.average(name).to(DType::f64);
    const Tensor start = before.at(name).as_tensor().to(DType::f64);
    ASSERT_EQ(average.average(name).dtype(), parameter.dtype());
    for (std::int64_t i = 0; i < found.size(); ++i) {
      EXPECT_NEAR(found.data<double>()[i], 2 + start.data<double>()[i] / 2, 1e-6);
    }
  }
}

TEST(MovingAverage, exchanged_twice_is_what_it_was_to_the_bit) {
  std::vector<NamedParameter> parameters = small_parameters();
  NamedOptimizer optimizer(parameters, Adam({.lr = 0.1}));
  Average average(parameters, {.decay = 0.5});
  train(optimizer, parameters, 1);
  average.update();
  const StateDict own = values(parameters), averages = average.state_dict().clone();
  average.exchange();
  EXPECT_TRUE(average.exchanged());
  EXPECT_TRUE(bit_equal(StateValue(values(parameters)), averages.at("average")));
  EXPECT_TRUE(bit_equal(average.average("a"), own.at("a").as_tensor()));
  average.exchange();
  EXPECT_FALSE(average.exchanged());
  EXPECT_TRUE(bit_equal(values(parameters), own));
  EXPECT_TRUE(bit_equal(average.state_dict(), averages));
}

TEST(MovingAverage, in_use_leaves_values_where_they_are_and_gives_them_back) {
  std::vector<NamedParameter> parameters = small_parameters();
  Average average(parameters, {.decay = 0.5});
  for (NamedParameter& named : parameters) named.parameter.mutable_value().fill(1);
  const StateDict own = values(parameters);
  const StateDict averages = average.state_dict().at("average").clone().as_dict();
  const void* address = parameters[0].parameter.value().raw();
  const auto evaluate = [&] {
    const UseAverage use(average);
    EXPECT_TRUE(bit_equal(values(parameters), averages));
    EXPECT_EQ(address, parameters[0].parameter.value().raw());
    throw DataError("evaluation failed");
  };
  EXPECT_THROW(evaluate(), DataError);
  EXPECT_TRUE(bit_equal(values(parameters), own));
  EXPECT_EQ(address, parameters[0].parameter.value().raw());
}

TEST(MovingAverage, in_use_is_not_used_a_second_time) {
  Parameter p = number(3);
  Average average({{"p", p}});
  p.mutable_value().fill(1);
  {
    const UseAverage use(average);
    EXPECT_TRUE(throws<StateError>([&] { const UseAverage again(average); },
                                   "the parameters have their averages as values"));
    EXPECT_EQ(first(p.value()), 3);
  }
  EXPECT_EQ(first(p.value()), 1);
}

TEST(MovingAverage, in_use_refuses_updates_saving_and_restoring) {
  Parameter p = number(3);
  Average average({{"p", p}});
  const StateDict saved = average.state_dict().clone();
  p.mutable_value().fill(1);
  const UseAverage use(average);
  EXPECT_TRUE(throws<StateError>([&] { average.update(); },
                                 "while the parameters have their averages as values"));
  EXPECT_TRUE(throws<StateError>([&] { average.state_dict(); }, "saving the moving average"));
  EXPECT_TRUE(throws<StateError>([&] { average.check_restore(saved); }, "restoring"));
  EXPECT_TRUE(throws<StateError>([&] { average.restore(saved); }, "restoring"));
  EXPECT_EQ(average.updates(), 0);
  EXPECT_EQ(first(p.value()), 3);
}

TEST(MovingAverage, follows_an_optimizer_by_a_hook) {
  std::vector<NamedParameter> parameters = small_parameters(), others = small_parameters();
  NamedOptimizer hooked(parameters, Adam({.lr = 0.1})), plain(others, Adam({.lr = 0.1}));
  Average by_hook(parameters, {.decay = 0.9}), by_hand(others, {.decay = 0.9});
  hooked.after_step([&](auto&, auto&) { by_hook.update(); });
  train(hooked, parameters, 4);
  for (std::uint64_t step = 0; step < 4; ++step) {
    train(plain, others, 1, step);
    by_hand.update();
  }
  EXPECT_TRUE(bit_equal(by_hook.state_dict(), by_hand.state_dict()));
  EXPECT_EQ(by_hook.updates(), 4);
  EXPECT_TRUE(bit_equal(snapshot(hooked, parameters), snapshot(plain, others)));
}

TEST(MovingAverage, restored_goes_on_to_the_same_bits) {
  std::vector<NamedParameter> parameters = small_parameters(), others = small_parameters();
  NamedOptimizer first_half(parameters, Adam({.lr = 0.1})), whole(others, Adam({.lr = 0.1}));
  Average uninterrupted(others, {.decay = 0.9, .warm_up = true});
  whole.after_step([&](auto&, auto&) { uninterrupted.update(); });
  train(whole, others, 7);

  Average before(parameters, {.decay = 0.9, .warm_up = true});
  const std::int64_t hook = first_half.after_step([&](auto&, auto&) { before.update(); });
  train(first_half, parameters, 3);
  const StateDict saved = before.state_dict().clone();
  first_half.remove_hook(hook);
  Average after(parameters, {.decay = 0.9, .warm_up = true});
  after.restore(saved);
  EXPECT_TRUE(bit_equal(after.state_dict(), saved));
  first_half.after_step([&](auto&, auto&) { after.update(); });
  train(first_half, parameters, 4, 3);
  EXPECT_TRUE(bit_equal(after.state_dict(), uninterrupted.state_dict()));
}

TEST(MovingAverage, restored_has_memory_of_its_own) {
  std::vector<NamedParameter> parameters = small_parameters();
  Average average(parameters);
  StateDict saved = average.state_dict().clone();
  average.restore(saved);
  const Tensor before = average.average("a").clone();
  saved["average"].as_dict()["a"].as_tensor().fill(9);
  EXPECT_TRUE(bit_equal(before, average.average("a")));
}

TEST(MovingAverage, is_saved_in_checkpoints) {
  const SharedFolder folder;
  std::vector<NamedParameter> parameters = small_parameters(), others = small_parameters();
  NamedOptimizer optimizer(parameters, SGD({.lr = 0.1})), other(others, SGD({.lr = 0.2}));
  Average average(parameters, {.decay = 0.9}), loaded(others, {.decay = 0.9});
  optimizer.after_step([&](auto&, auto&) { average.update(); });
  train(optimizer, parameters, 3);
  train(other, others, 2);
  checkpoint::save(folder / "c", world(), {{"optimizer", optimizer}, {"average", average}});
  checkpoint::load(folder / "c", world(), {{"optimizer", other}, {"average", loaded}});
  EXPECT_TRUE(bit_equal(average.state_dict(), loaded.state_dict()));
  EXPECT_EQ(loaded.updates(), 3);
  const UseAverage use(loaded);
  EXPECT_TRUE(throws<StateError>(
      [&] {
        checkpoint::save(folder / "c", world(), {{"average", loaded}});
      },
      "averages"));
}

TEST(MovingAverage, goes_on_when_a_reducer_moves_the_parameters) {
  std::vector<NamedParameter> parameters = small_parameters(), others = small_parameters();
  Average moved(parameters, {.decay = 0.5}), plain(others, {.decay = 0.5});
  NamedOptimizer optimizer(parameters, Adam({.lr = 0.1})), other(others, Adam({.lr = 0.1}));
  const auto both = [&](std::uint64_t step) {
    train(optimizer, parameters, 1, step);
    moved.update();
    train(other, others, 1, step);
    plain.update();
  };
  both(0);
  {
    const GradientReducer reducer(parameters, world());
    both(1);
    moved.exchange();
    plain.exchange();
    EXPECT_TRUE(bit_equal(values(parameters), values(others)));
  }
  moved.exchange();
  plain.exchange();
  both(2);
  EXPECT_TRUE(bit_equal(moved.state_dict(), plain.state_dict()));
  EXPECT_TRUE(bit_equal(values(parameters), values(others)));
}

TEST(MovingAverage, of_tied_parameters_is_one_under_the_first_name) {
  Parameter shared = number(4);
  Average average({{"in", shared}, {"out", shared}}, {.decay = 0.5});
  shared.mutable_value().fill(0);
  average.update();
  EXPECT_EQ(first(average.average("in")), 2);
  EXPECT_EQ(average.state_dict().at("average").as_dict().size(), 1U);
  average.exchange();
  EXPECT_EQ(first(shared.value()), 2);
}

TEST(MovingAverageErrors, name_what_is_wrong_at_construction) {
  const Parameter p = number(1), q = number(2);
  const std::vector<NamedParameter> one{{"p", p}};
  for (const double bad : {-0.1, 1.0, 1.5, std::nan("")}) {
    EXPECT_TRUE(throws<OptionError>([&] { Average(one, {.decay = bad}); },
                                    "moving average: expected 0 <= decay < 1"));
  }
  EXPECT_TRUE(throws<OptionError>([&] { Average(std::vector<NamedParameter>()); },
                                  "the moving average got no parameters"));
  const std::vector<NamedParameter> same_name{{"p", p}, {"p", q}};
  EXPECT_TRUE(throws<NameError>([&] { Average{same_name}; }, "two parameters are called 'p'"));
  const std::vector<NamedParameter> hole{{"p", p}, {"hole", Parameter()}};
  EXPECT_TRUE(throws<StateError>([&] { Average{hole}; }, "parameter 'hole' is undefined"));
  EXPECT_TRUE(throws<NameError>([&] { Average(one).average("q"); },
                                "there is no moving average of a parameter 'q'"));
}

TEST(MovingAverageErrors, of_a_state_that_does_not_fit_change_nothing) {
  std::vector<NamedParameter> parameters = small_parameters();
  Average average(parameters);
  for (NamedParameter& named : parameters) named.parameter.mutable_value().fill(1);
  average.update();
  const StateDict before = average.state_dict().clone();
  const auto edited = [&](auto&& edit) {
    Average other(small_parameters());
    StateDict saved = other.state_dict().clone();
    edit(saved, saved["average"].as_dict());
    return saved;
  };
  const auto refused = [&]<class E>(const E*, const StateDict& source, const char* message) {
    EXPECT_TRUE(throws<E>([&] { average.check_restore(source); }, message));
    const auto result = throws<E>([&] { average.restore(source); }, message);
    EXPECT_TRUE(bit_equal(before, average.state_dict()));
    return result;
  };
  const ShapeError* shape = nullptr;
  const DTypeError* dtype = nullptr;
  const StateError* state = nullptr;
  const NameError* name = nullptr;
  EXPECT_TRUE(refused(shape, edited([](auto&, auto& all) { all["d"] = Tensor::zeros({1}); }),
                      "moving average of 'd': expected shape (5), found (1)"));
  EXPECT_TRUE(refused(dtype, edited([](auto&, auto& all) { all["d"] = Tensor::zeros({5}); }),
                      "moving average of 'd': expected dtype f64, found f32"));
  EXPECT_TRUE(refused(state, edited([](auto&, auto& all) { all["d"] = 1.0; }), "a tensor"));
  EXPECT_TRUE(refused(state, edited([](auto&, auto& all) { all["z"] = Tensor::zeros({1}); }),
                      "'z', which is not known"));
  EXPECT_TRUE(refused(state, edited([](auto&, auto& all) {
                        all = {{"a", all["a"]}, {"b", all["b"]}, {"c", all["c"]}, {"z", all["d"]}};
                      }),
                      "lacks the moving average of 'd'"));
  EXPECT_TRUE(refused(state, edited([](auto& saved, auto&) { saved["updates"] = -1; }),
                      "expected at least 0 updates, found -1"));
  EXPECT_TRUE(
      refused(state, edited([](auto& saved, auto&) { saved["updates"] = 1.5; }), "an integer"));
  EXPECT_TRUE(refused(name, {}, "'updates'"));
}

TEST(MovingAverage, is_restored_from_any_name_of_a_tied_parameter) {
  const auto saved_as = [](const std::string& name) {
    return StateDict{{"updates", 3}, {"average", StateDict{{name, Tensor::full({2}, 0.5)}}}};
  };
  const Parameter shared(Tensor::zeros({2}));
  for (const char* name : {"encoder.w", "decoder.w"}) {
    ExponentialMovingAverage average({{"encoder.w", shared}, {"decoder.w", shared}});
    average.restore(saved_as(name));
    EXPECT_EQ(average.average("encoder.w").data<float>()[1], 0.5F) << name;
  }
  ExponentialMovingAverage average({{"encoder.w", shared}, {"decoder.w", shared}});
  EXPECT_THROW(average.restore(saved_as("other.w")), StateError);
}

}  // namespace moving_average_test
}  // namespace lockstep
