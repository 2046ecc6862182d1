#include "lockstep/state/state_dict.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace state_dict_test {

using testing::throws;

Tensor scalar(double value) { return Tensor::full({}, value, DType::f64); }

TEST(StateValue, keeps_each_kind) {
  EXPECT_EQ(StateValue(true).as_bool(), true);
  EXPECT_EQ(StateValue(-3).as_int(), -3);
  EXPECT_EQ(StateValue(std::uint8_t{200}).as_int(), 200);
  EXPECT_EQ(StateValue(std::numeric_limits<std::int64_t>::min()).as_int(),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(StateValue(2.5).as_double(), 2.5);
  EXPECT_EQ(StateValue(2.5F).as_double(), 2.5);
  EXPECT_EQ(StateValue("text").as_string(), "text");
  EXPECT_EQ(StateValue(std::string("a\0b", 3)).as_string().size(), 3U);
  EXPECT_EQ(StateValue(std::string_view("view")).as_string(), "view");
  EXPECT_EQ(StateValue(scalar(4)).as_tensor().item(), 4);
  EXPECT_EQ(StateValue(StateDict{{"a", 1}}).as_dict().at("a").as_int(), 1);
  EXPECT_EQ(StateValue(StateList{1, "b"}).as_list().size(), 2U);
  EXPECT_TRUE(StateValue().as_dict().empty());
}

TEST(StateValue, keeps_all_bits_of_an_unsigned_seed) {
  const std::uint64_t seed = 0xfedcba9876543210U;
  EXPECT_EQ(static_cast<std::uint64_t>(StateValue(seed).as_int()), seed);
}

TEST(StateValue, refuses_to_be_read_as_another_kind) {
  EXPECT_TRUE(
      throws<StateError>([] { StateValue(1).as_double(); }, "expected a double", "an integer"));
  EXPECT_TRUE(
      throws<StateError>([] { StateValue(1.0).as_int(); }, "expected an integer", "a double"));
  EXPECT_TRUE(throws<StateError>([] { StateValue(true).as_int(); }, "found a bool"));
  EXPECT_TRUE(throws<StateError>([] { StateValue("x").as_bool(); }, "expected a bool", "a string"));
  EXPECT_TRUE(throws<StateError>([] { StateValue(scalar(1)).as_string(); }, "expected a string",
                                 "a tensor"));
  EXPECT_TRUE(throws<StateError>([] { StateValue().as_tensor(); }, "expected a tensor", "a dict"));
  EXPECT_TRUE(
      throws<StateError>([] { StateValue(StateList{}).as_dict(); }, "expected a dict", "a list"));
  EXPECT_TRUE(throws<StateError>([] { StateValue(0).as_list(); }, "expected a list"));
}

TEST(StateDict, makes_entries_and_finds_them) {
  StateDict state;
  EXPECT_TRUE(state.empty());
  state["model"].as_dict()["weight"] = scalar(1);
  state["step"] = 7;
  state["step"] = 8;
  EXPECT_EQ(state.size(), 2U);
  EXPECT_TRUE(state.contains("step"));
  EXPECT_FALSE(state.contains("Step"));
  EXPECT_EQ(state.at("step").as_int(), 8);
  EXPECT_EQ(state.at("model").as_dict().at("weight").as_tensor().item(), 1);
  EXPECT_TRUE(state["made here"].as_dict().empty());
  EXPECT_TRUE(state.contains("made here"));
}

TEST(StateDict, is_in_the_order_of_its_keys) {
  const StateDict state{{"b", 1}, {"", 2}, {"a.b", 3}, {"a", 4}, {"B", 5}};
  std::vector<std::string> keys;
  for (const auto& [key, value] : state) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"", "B", "a", "a.b", "b"}));
}

TEST(StateDict, inserts_only_what_is_new) {
  StateDict state{{"b", 1}};
  EXPECT_TRUE(state.insert("c", 2));
  EXPECT_TRUE(state.insert("a", 3));
  EXPECT_FALSE(state.insert("b", 4));
  EXPECT_TRUE(bit_equal(state, StateDict{{"a", 3}, {"b", 1}, {"c", 2}}));
}

TEST(StateDict, says_which_keys_there_are_when_one_is_missing) {
  EXPECT_TRUE(throws<NameError>([] { StateDict().at("lr"); }, "'lr'", "which has none"));
  EXPECT_TRUE(throws<NameError>([] { StateDict({{"lr ", 1}}).at("lr"); }, "'lr'", "'lr '"));
  StateDict many;
  for (int i = 10; i < 30; ++i) many["key" + std::to_string(i)] = i;
  EXPECT_TRUE(throws<NameError>([&] { many.at("x"); }, "'key10'", "'key17'", "and 12 more"));
}

TEST(StateDict, copies_share_tensors_and_nothing_else) {
  StateDict state{{"tensor", scalar(1)}, {"nested", StateDict{{"number", 1}}}};
  StateDict copy = state;
  copy["nested"].as_dict()["number"] = 2;
  copy["tensor"].as_tensor().fill(5);
  EXPECT_EQ(state.at("nested").as_dict().at("number").as_int(), 1);
  EXPECT_EQ(state.at("tensor").as_tensor().item(), 5);
}

TEST(StateDict, clone_copies_tensors_at_every_depth) {
  StateDict state{{"a", scalar(1)},
                  {"list", StateList{scalar(2), StateDict{{"b", StateList{scalar(3)}}}}}};
  const StateDict clone = state.clone();
  EXPECT_TRUE(bit_equal(state, clone));
  state["a"].as_tensor().fill(0);
  StateList& list = state["list"].as_list();
  list[0].as_tensor().fill(0);
  list[1].as_dict()["b"].as_list()[0].as_tensor().fill(0);
  EXPECT_EQ(clone.at("a").as_tensor().item(), 1);
  EXPECT_EQ(clone.at("list").as_list()[0].as_tensor().item(), 2);
  EXPECT_EQ(clone.at("list").as_list()[1].as_dict().at("b").as_list()[0].as_tensor().item(), 3);
}

TEST(BitEqual, tells_bits_apart_and_not_values) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto with = [](StateValue value) { return StateDict{{"x", StateList{std::move(value)}}}; };
  EXPECT_TRUE(bit_equal(with(nan), with(nan)));
  EXPECT_FALSE(bit_equal(with(nan), with(std::copysign(nan, -1))));
  EXPECT_FALSE(bit_equal(with(0.0), with(-0.0)));
  EXPECT_TRUE(bit_equal(with(scalar(nan)), with(scalar(nan))));
  EXPECT_FALSE(bit_equal(with(scalar(0.0)), with(scalar(-0.0))));
  EXPECT_FALSE(bit_equal(with(1), with(1.0)));
  EXPECT_FALSE(bit_equal(with(true), with(1)));
  EXPECT_FALSE(bit_equal(with("a"), with("b")));
}

TEST(BitEqual, compares_structure_and_keys) {
  const StateDict a{{"x", 1}, {"y", 2}};
  EXPECT_TRUE(bit_equal(a, StateDict({{"y", 2}, {"x", 1}})));
  EXPECT_FALSE(bit_equal(a, StateDict({{"x", 1}})));
  EXPECT_FALSE(bit_equal(StateDict({{"x", 1}}), a));
  EXPECT_FALSE(bit_equal(a, StateDict({{"x", 1}, {"z", 2}})));
  EXPECT_FALSE(bit_equal(StateDict(), a));
  EXPECT_TRUE(bit_equal(StateDict(), StateDict()));
  EXPECT_FALSE(bit_equal(StateValue(StateList{1}), StateValue(StateList{1, 2})));
  EXPECT_FALSE(bit_equal(StateValue(StateList{}), StateValue(StateDict{})));
}

}  // namespace state_dict_test
}  // namespace lockstep
