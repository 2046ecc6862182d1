#include "lockstep/state/named_tensors.hpp"

#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace named_tensors_test {

using testing::throws;

struct Fields : ::testing::Test {
  std::vector<double> memory{1, 2, 3, 4};
  Tensor mask = Tensor::full({3}, 1, DType::u8);
  NamedTensors fields{{{"temperature", Tensor::borrow(std::span(memory), {2, 2})}, {"mask", mask}}};
};

TEST_F(Fields, are_saved_as_they_are_when_asked) {
  memory[1] = 20;
  const StateDict expected{{"temperature", Tensor::from(std::vector<double>{1, 20, 3, 4}, {2, 2})},
                           {"mask", Tensor::full({3}, 1, DType::u8)}};
  EXPECT_TRUE(bit_equal(fields.state_dict(), expected));
}

TEST_F(Fields, come_back_into_the_memory_of_the_caller) {
  const StateDict saved = fields.state_dict().clone();
  memory = {0, 0, 0, 0};
  mask.fill(0);
  fields.check_restore(saved);
  EXPECT_EQ(memory[0], 0) << "a check changes nothing";
  fields.restore(saved);
  EXPECT_EQ(memory, (std::vector<double>{1, 2, 3, 4}));
  EXPECT_EQ(mask.span<std::uint8_t>()[2], 1);
}

TEST_F(Fields, stay_as_they_were_when_one_does_not_fit) {
  const Tensor zeros = Tensor::zeros({2, 2}, DType::f64), none = Tensor::zeros({3}, DType::u8);
  const auto refuses = [&]<class E>(E*, const StateDict& source, const auto&... parts) {
    return throws<E>([&] { fields.restore(source); }, parts...);
  };
  EXPECT_TRUE(
      refuses(static_cast<StateError*>(nullptr), {{"temperature", zeros}}, "missing: mask"));
  EXPECT_TRUE(refuses(static_cast<StateError*>(nullptr),
                      {{"temperature", zeros}, {"mask", none}, {"x", none}}, "unexpected: x"));
  EXPECT_TRUE(refuses(static_cast<ShapeError*>(nullptr),
                      {{"temperature", Tensor::zeros({4}, DType::f64)}, {"mask", none}},
                      "'temperature'", "(2, 2)", "(4)"));
  EXPECT_TRUE(refuses(static_cast<DTypeError*>(nullptr),
                      {{"temperature", Tensor::zeros({2, 2})}, {"mask", none}}, "'temperature'",
                      "f64", "f32"));
  EXPECT_TRUE(
      refuses(static_cast<StateError*>(nullptr), {{"temperature", 1}, {"mask", none}}, "a tensor"));
  EXPECT_EQ(memory, (std::vector<double>{1, 2, 3, 4}));
}

TEST(NamedTensors, want_names_of_their_own_and_memory) {
  const Tensor zeros = Tensor::zeros({2});
  EXPECT_TRUE(throws<NameError>([&] { NamedTensors({{"a", zeros}, {"a", zeros}}); }, "'a'"));
  EXPECT_TRUE(throws<StateError>([&] { NamedTensors({{"a", Tensor()}}); }, "'a'", "undefined"));
}

TEST(NamedTensors, have_this_ranks_part_of_a_field) {
  std::vector<double> memory{1, 2, 3};
  NamedTensors fields{{{"field", TensorPart{{4, 2}, 2, Tensor::borrow(memory)}}}};
  const StateDict saved = fields.state_dict().clone();
  memory = {0, 0, 0};
  fields.restore(saved);
  EXPECT_EQ(memory, (std::vector<double>{1, 2, 3}));
  Tensor whole = Tensor::from(std::vector<double>{10, 11, 12, 13, 14, 15, 16, 17}, {4, 2});
  fields.restore({{"field", whole}});
  EXPECT_EQ(memory, (std::vector<double>{12, 13, 14}));
  const auto refuses = [&]<class E>(E*, const StateValue& value, const char* message) {
    return throws<E>([&] { fields.restore({{"field", value}}); }, "'field'", message);
  };
  const Tensor three = Tensor::zeros({3}, DType::f64);
  EXPECT_TRUE(refuses(static_cast<StateError*>(nullptr), TensorPart{{4, 2}, 3, three}, "3 to 6"));
  EXPECT_TRUE(refuses(static_cast<ShapeError*>(nullptr), TensorPart{{2, 4}, 2, three}, "(2, 4)"));
  EXPECT_TRUE(refuses(static_cast<ShapeError*>(nullptr), whole.rows(0, 3), "(3, 2)"));
  EXPECT_TRUE(
      refuses(static_cast<DTypeError*>(nullptr), TensorPart{{4, 2}, 2, Tensor::zeros({3})}, "f32"));
  EXPECT_EQ(memory, (std::vector<double>{12, 13, 14}));
}

TEST(NamedTensors, want_parts_that_are_within_their_tensor) {
  const auto refuses = [](std::int64_t begin, const Shape& shape) {
    return throws<ShapeError>(
        [&] {
          NamedTensors({{"a", TensorPart{{4, 2}, begin, Tensor::zeros(shape)}}});
        },
        "'a'", "8 numbers");
  };
  EXPECT_TRUE(refuses(-1, {3}));
  EXPECT_TRUE(refuses(6, {3}));
  EXPECT_TRUE(refuses(0, {4, 2}));
  EXPECT_TRUE(throws<StateError>([] { NamedTensors({{"a", TensorPart{}}}); }, "'a'", "undefined"));
}

}  // namespace named_tensors_test
}  // namespace lockstep
