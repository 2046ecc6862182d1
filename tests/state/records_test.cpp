#include "state/records.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "state/drawn_state.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace records_test {

using testing::Draw;
using testing::throws;

StateDict nested(int depth) {
  StateDict state;
  for (int i = 0; i < depth; ++i) state = StateDict{{"d", state}};
  return state;
}

TEST(Records, of_any_tree_give_that_tree_again) {
  for (std::uint32_t seed = 0; seed < 500; ++seed) {
    const StateDict state = Draw(seed).dict(4);
    const FlatState flat = flatten(state);
    EXPECT_TRUE(bit_equal(unflatten(flat.records, flat.tensors), state)) << "seed " << seed;
  }
}

TEST(Records, share_the_tensors) {
  const Tensor tensor = Tensor::zeros({2});
  const FlatState flat = flatten(StateDict{{"t", tensor}});
  EXPECT_EQ(flat.tensors.at(0).raw(), tensor.raw());
  EXPECT_EQ(unflatten(flat.records, flat.tensors).at("t").as_tensor().raw(), tensor.raw());
}

TEST(Records, are_in_depth_first_order) {
  const FlatState flat = flatten(
      StateDict{{"a", StateDict{{"x", 5}, {"y", Tensor::zeros({})}}}, {"b", StateList{true, 1.0}}});
  ASSERT_EQ(flat.records.size(), 7U);
  const std::vector<std::string> keys{"", "a", "x", "y", "b", "", ""};
  const std::vector<StateRecord::Kind> kinds{
      StateRecord::dict, StateRecord::dict,    StateRecord::integer, StateRecord::tensor,
      StateRecord::list, StateRecord::boolean, StateRecord::real};
  const std::vector<std::uint64_t> numbers{2, 2, 5, 0, 2, 1, std::bit_cast<std::uint64_t>(1.0)};
  const std::vector<std::string> paths{"", "a", "a/x", "a/y", "b", "b/0", "b/1"};
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(flat.records[i].key, keys[i]) << i;
    EXPECT_EQ(flat.records[i].kind, kinds[i]) << i;
    EXPECT_EQ(flat.records[i].number, numbers[i]) << i;
    EXPECT_EQ(path_of(flat.records, i), paths[i]) << i;
  }
}

TEST(Records, of_a_tree_that_cannot_be_read_again_are_refused) {
  const FlatState deepest = flatten(nested(max_state_depth));
  EXPECT_TRUE(bit_equal(unflatten(deepest.records, {}), nested(max_state_depth)));
  EXPECT_TRUE(throws<StateError>([] { flatten(nested(max_state_depth + 1)); }, "d/d/d", "deep"));
  const StateDict undefined{{"a", StateDict{{"b", StateList{1, Tensor()}}}}};
  EXPECT_TRUE(throws<StateError>([&] { flatten(undefined); }, "'a/b/1'", "undefined"));
}

class DamagedRecords : public ::testing::Test {
 protected:
  DamagedRecords()
      : flat(flatten({{"a", StateList{1, Tensor::zeros({})}}, {"b", Tensor::zeros({})}})) {}

  ::testing::AssertionResult refused(const char* why) {
    return throws<StateError>([this] { unflatten(flat.records, flat.tensors); }, "damaged", why);
  }

  FlatState flat;  // dict, list a, 1, tensor 0, tensor b
};

TEST_F(DamagedRecords, that_are_none) {
  flat.records.clear();
  EXPECT_TRUE(refused("expected a dict first"));
}

TEST_F(DamagedRecords, that_do_not_begin_with_a_dict) {
  flat.records.erase(flat.records.begin());
  EXPECT_TRUE(refused("expected a dict first"));
}

TEST_F(DamagedRecords, that_end_early) {
  while (flat.records.size() > 1) {
    flat.records.pop_back();
    EXPECT_TRUE(refused("a record is missing"));
  }
}

TEST_F(DamagedRecords, that_go_on) {
  flat.records.emplace_back();
  EXPECT_TRUE(refused("records are left over"));
}

TEST_F(DamagedRecords, with_too_many_or_too_few_tensors) {
  flat.tensors.push_back(Tensor::zeros({}));
  EXPECT_TRUE(refused("tensors are left over"));
  flat.tensors.resize(1);
  EXPECT_TRUE(refused("tensor's number"));
}

TEST_F(DamagedRecords, that_name_tensors_out_of_order) {
  std::swap(flat.records[3].number, flat.records[4].number);
  EXPECT_TRUE(refused("tensor's number"));
}

TEST_F(DamagedRecords, with_a_key_twice) {
  flat.records[4].key = "a";
  EXPECT_TRUE(refused("a key comes twice"));
}

TEST_F(DamagedRecords, of_an_unknown_kind) {
  for (const int kind : {7, 255}) {
    flat.records[2].kind = static_cast<std::uint8_t>(kind);
    EXPECT_TRUE(refused("a kind is unknown"));
  }
}

TEST_F(DamagedRecords, that_claim_endless_children) {
  for (const std::size_t place : {0U, 1U}) {
    flat.records[place].number = std::numeric_limits<std::uint64_t>::max();
    EXPECT_THROW(unflatten(flat.records, flat.tensors), StateError);
  }
}

TEST_F(DamagedRecords, that_nest_without_end) {
  std::vector<StateRecord> deep(100'000);
  for (StateRecord& record : deep) {
    record.kind = StateRecord::list;
    record.number = 1;
  }
  deep[0].kind = StateRecord::dict;
  EXPECT_TRUE(throws<StateError>([&] { unflatten(deep, {}); }, "too deep"));
}

// Some changes leave a valid tree; the others must be noticed, and none may do harm.
TEST(Records, with_any_change_are_read_or_refused) {
  int refused = 0;
  for (std::uint32_t seed = 0; seed < 20'000; ++seed) {
    Draw draw(seed);
    FlatState flat = flatten(draw.dict(3));
    std::vector<StateRecord>& records = flat.records;
    for (std::size_t changes = 1 + draw.below(3); changes > 0 && !records.empty(); --changes) {
      const auto place = static_cast<std::ptrdiff_t>(draw.below(records.size()));
      StateRecord& record = records[static_cast<std::size_t>(place)];
      switch (draw.below(8)) {
        case 0:
          record.kind = static_cast<std::uint8_t>(draw.below(9));
          break;
        case 1:
          record.number = draw.below(8);
          break;
        case 2:
          record.number = draw.bits();
          break;
        case 3:
          records.erase(records.begin() + place);
          break;
        case 4:
          records.insert(records.begin() + place, StateRecord(record));
          break;
        case 5:
          record.key = draw.text();
          break;
        case 6:
          std::swap(record, records[draw.below(records.size())]);
          break;
        default:
          flat.tensors.resize(draw.below(4));
          break;
      }
    }
    try {
      const StateDict state = unflatten(records, flat.tensors);
      if (std::ranges::all_of(flat.tensors, &Tensor::defined)) {
        const FlatState again = flatten(state);
        EXPECT_EQ(again.records.size(), records.size()) << "seed " << seed;
      }
    } catch (const StateError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 5000);
}

}  // namespace records_test
}  // namespace lockstep
