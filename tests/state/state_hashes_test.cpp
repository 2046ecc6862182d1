#include "state/state_hashes.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace state_hashes_test {

std::vector<NamedHash> hashes_of(const StateDict& state, bool numbers = true) {
  const FlatState flat = flatten(state);
  std::vector<std::uint64_t> checksums;
  for (const Tensor& tensor : flat.tensors) checksums.push_back(numbers ? checksum(tensor) : 0);
  return hash_entries(flat, checksums);
}

bool equal(const std::vector<NamedHash>& a, const std::vector<NamedHash>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name || a[i].hash != b[i].hash) return false;
  }
  return true;
}

StateDict example() {
  return {{"model", StateDict{{"weight", Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3})}}},
          {"groups", StateList{StateDict{{"lr", 0.1}, {"nesterov", false}}, "second"}},
          {"step", 7}};
}

TEST(StateHashes, are_of_every_entry_by_its_path) {
  std::vector<std::string> names;
  for (const NamedHash& entry : hashes_of(example())) names.push_back(entry.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"groups", "groups/0", "groups/0/lr", "groups/0/nesterov",
                                      "groups/1", "model", "model/weight", "step"}));
  EXPECT_TRUE(equal(hashes_of(example()), hashes_of(example().clone())));
}

TEST(StateHashes, differ_in_nothing_but_the_entry_that_differs) {
  const auto expect_only = [](const std::string& name, const auto& change) {
    StateDict state = example();
    change(state);
    const std::vector<NamedHash> before = hashes_of(example()), after = hashes_of(state);
    ASSERT_EQ(before.size(), after.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(before[i].name, after[i].name);
      EXPECT_EQ(before[i].hash != after[i].hash, before[i].name == name) << before[i].name;
    }
  };
  const auto group = [](StateDict& state) -> StateDict& {
    return state["groups"].as_list()[0].as_dict();
  };
  expect_only("step", [](StateDict& state) { state["step"] = 8; });
  expect_only("step", [](StateDict& state) { state["step"] = 7.0; });
  expect_only("groups/0/lr", [&](StateDict& state) { group(state)["lr"] = -0.1; });
  expect_only("groups/0/nesterov", [&](StateDict& state) { group(state)["nesterov"] = true; });
  expect_only("groups/0/nesterov", [&](StateDict& state) { group(state)["nesterov"] = 0; });
  expect_only("groups/1", [](StateDict& state) { state["groups"].as_list()[1] = "third"; });
  const auto weight = [](StateDict& state) -> Tensor& {
    return state["model"].as_dict()["weight"].as_tensor();
  };
  expect_only("model/weight", [&](StateDict& state) { weight(state).data<float>()[5] = 7; });
  expect_only("model/weight",
              [&](StateDict& state) { weight(state) = weight(state).reshape({6}); });
  expect_only("model/weight", [&](StateDict& state) {
    weight(state) = Tensor::of(nullptr, weight(state).raw(), {2, 3}, DType::f32).to(DType::f64);
  });
}

TEST(StateHashes, tell_trees_apart_whose_keys_have_slashes) {
  const StateDict a{{"x", StateDict{{"y", 1}}}}, b{{"x", StateDict()}, {"x/y", 1}};
  EXPECT_EQ(hashes_of(a)[1].name, hashes_of(b)[1].name);
  EXPECT_FALSE(equal(hashes_of(a), hashes_of(b)));
  const StateDict list{{"x", StateList{1}}}, dict{{"x", StateDict{{"0", 1}}}};
  EXPECT_FALSE(equal(hashes_of(list), hashes_of(dict)));
}

TEST(StateHashes, are_of_bits) {
  const auto of = [](double number) {
    return hashes_of({{"t", Tensor::full({1}, number, DType::f64)}, {"x", number}});
  };
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(equal(of(nan), of(nan)));
  EXPECT_NE(of(0)[0].hash, of(-0.0)[0].hash);
  EXPECT_NE(of(0)[1].hash, of(-0.0)[1].hash);
}

TEST(StateHashes, leave_out_numbers_of_tensors_on_request) {
  StateDict state = example();
  state["model"].as_dict()["weight"].as_tensor().fill(9);
  EXPECT_TRUE(equal(hashes_of(example(), false), hashes_of(state, false)));
  state["model"].as_dict()["weight"] = Tensor::zeros({3, 2});
  EXPECT_FALSE(equal(hashes_of(example(), false), hashes_of(state, false)));
}

}  // namespace state_hashes_test
}  // namespace lockstep
