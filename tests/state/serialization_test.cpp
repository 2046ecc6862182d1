#include "lockstep/state/serialization.hpp"

#include <boost/archive/binary_iarchive.hpp>
#include <boost/archive/binary_oarchive.hpp>
#include <boost/archive/text_iarchive.hpp>
#include <boost/archive/text_oarchive.hpp>
#include <boost/serialization/vector.hpp>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "state/drawn_state.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace serialization_test {

using testing::Draw;
using testing::throws;

template <class Out, class In>
struct Archives {
  template <class T>
  static std::string save(const T& value) {
    std::ostringstream stream;
    {
      Out archive(stream);
      archive << value;
    }
    return stream.str();
  }
  template <class T>
  static void load(const std::string& bytes, T& value) {
    std::istringstream stream(bytes);
    In archive(stream);
    archive >> value;
  }
};
using Text = Archives<boost::archive::text_oarchive, boost::archive::text_iarchive>;
using Binary = Archives<boost::archive::binary_oarchive, boost::archive::binary_iarchive>;

template <class T>
class Serialization : public ::testing::Test {};
using Kinds = ::testing::Types<Text, Binary>;
TYPED_TEST_SUITE(Serialization, Kinds, );

TYPED_TEST(Serialization, of_any_state_gives_that_state_again) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    const StateDict state = Draw(seed).dict(3);
    StateDict found{{"before", 1}};
    TypeParam::load(TypeParam::save(state), found);
    EXPECT_TRUE(bit_equal(found, state)) << "seed " << seed;
  }
}

TYPED_TEST(Serialization, keeps_every_bit_of_numbers_that_text_cannot_have) {
  const double infinity = std::numeric_limits<double>::infinity();
  const StateDict state{{"inf", infinity},
                        {"nan", std::nan("7")},
                        {"zero", -0.0},
                        {"tensor", Tensor::full({2, 3}, -infinity, DType::f32)},
                        {"text", std::string("a\0\n\xff b", 6)}};
  StateDict found;
  TypeParam::load(TypeParam::save(state), found);
  EXPECT_TRUE(bit_equal(found, state));
}

TYPED_TEST(Serialization, of_a_tensor_longer_than_a_string_of_it) {
  Tensor tensor = Tensor::empty({700'001});
  fill_uniform(tensor, RandomKey(3), -1, 1);
  const StateDict state{{"t", tensor}, {"u", Tensor::zeros({0, 5}, DType::i64)}};
  StateDict found;
  TypeParam::load(TypeParam::save(state), found);
  EXPECT_TRUE(bit_equal(found, state));
  EXPECT_NE(found.at("t").as_tensor().raw(), tensor.raw());
}

// As a part of something else, beside other objects.
struct Simulation {
  int step = 0;
  std::vector<double> field;
  StateDict model;

  template <class Archive>
  void serialize(Archive& archive, unsigned) {
    archive& step& field& model;
  }
};

TYPED_TEST(Serialization, is_part_of_a_callers_object) {
  const Simulation before{7, {1, 2, 3}, {{"weight", Tensor::full({4}, 2.5)}, {"epoch", 3}}};
  Simulation after;
  TypeParam::load(TypeParam::save(before), after);
  EXPECT_EQ(after.step, 7);
  EXPECT_EQ(after.field, before.field);
  EXPECT_TRUE(bit_equal(after.model, before.model));
}

TYPED_TEST(Serialization, of_equal_states_gives_equal_bytes) {
  EXPECT_EQ(TypeParam::save(Draw(5).dict(3)), TypeParam::save(Draw(5).dict(3)));
}

// What an archive holds, number by number and text by text.
struct Words : detail::StateArchive {
  std::vector<std::string> words;
  std::size_t next = 0;
  bool loads = false;

  void number(std::uint64_t& value) override {
    if (!loads) return words.push_back(std::to_string(value));
    value = std::stoull(words.at(next++));
  }
  void text(std::string& value) override {
    if (!loads) return words.push_back(value);
    value = words.at(next++);
  }
};

TEST(SerializationOf, what_is_no_state_is_refused) {
  Words saved;
  detail::save(saved, {{"t", Tensor::zeros({3}, DType::u8)}});
  // version, records, ("", 5, 1, ""), ("t", 4, 0, ""), tensors, dtype, rank, extent, bytes
  ASSERT_EQ(saved.words.size(), 15U);
  const auto refused = [&](std::size_t word, const std::string& value, const std::string& why) {
    Words changed = saved;
    changed.words[word] = value;
    changed.loads = true;
    return throws<StateError>([&] { detail::load(changed); }, why);
  };
  EXPECT_TRUE(refused(0, "2", "expected format 1, found 2"));
  EXPECT_TRUE(refused(3, "7", "a value of kind 7"));
  EXPECT_TRUE(refused(4, "2", "a record is missing"));
  EXPECT_TRUE(refused(8, "1", "tensor"));
  EXPECT_TRUE(refused(11, "9", "dtype 9"));
  EXPECT_TRUE(refused(12, "9", "a tensor of 9 dimensions"));
  EXPECT_TRUE(refused(14, "four", "4 bytes of a tensor where 3 were expected"));
  saved.loads = true;
  EXPECT_TRUE(bit_equal(detail::load(saved), {{"t", Tensor::zeros({3}, DType::u8)}}));
}

TEST(SerializationOf, a_load_that_fails_leaves_what_was_there) {
  std::string bytes = Text::save(StateDict{{"a", 1}});
  bytes[bytes.find(" 1 2 ") + 1] = '9';  // the format
  StateDict state{{"b", 2}};
  EXPECT_TRUE(throws<StateError>([&] { Text::load(bytes, state); }, "format"));
  EXPECT_TRUE(bit_equal(state, StateDict{{"b", 2}}));
}

}  // namespace serialization_test
}  // namespace lockstep
