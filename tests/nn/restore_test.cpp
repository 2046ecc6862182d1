#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace restore_test {

using testing::throws;

struct Model : Module {
  Linear hidden{3, 4};
  Dropout dropout{0.5};
  Tensor counts = Tensor::zeros({2}, DType::i64);

  void visit(Visitor& visitor) override {
    visitor("hidden", hidden);
    visitor("dropout", dropout);
    visitor("counts", counts);
  }
  Variable forward(const Variable& x) override { return dropout(hidden(x)); }
};

class Restore : public ::testing::Test {
 protected:
  Restore() {
    source.initialize(1);
    source.counts.fill(7);
    const float odd[] = {std::numeric_limits<float>::quiet_NaN(), -0.0F, 1e-42F};
    std::copy(std::begin(odd), std::end(odd), source.hidden.weight.mutable_value().data<float>());
    source(Tensor::zeros({2, 3}));
    saved = source.state_dict().clone();
    target.initialize(2);
    before = target.state_dict().clone();
  }

  // Whether restoring a changed state is refused and leaves the target alone.
  template <class E, class... Parts>
  ::testing::AssertionResult refused(const std::function<void(StateDict&)>& change,
                                     const Parts&... parts) {
    StateDict changed = saved.clone();
    change(changed);
    if (auto result = throws<E>([&] { target.check_restore(changed); }, parts...); !result)
      return result;
    if (auto result = throws<E>([&] { target.restore(changed); }, parts...); !result) return result;
    if (!bit_equal(target.state_dict(), before)) return ::testing::AssertionFailure() << "changed";
    return ::testing::AssertionSuccess();
  }

  static StateDict without(const StateDict& state, const std::string& key) {
    StateDict rest;
    for (const auto& [name, value] : state) {
      if (name != key) rest[name] = value;
    }
    return rest;
  }

  Model source, target;
  StateDict saved, before;
};

TEST_F(Restore, brings_back_every_bit) {
  EXPECT_FALSE(bit_equal(before, saved));
  target.check_restore(saved);
  EXPECT_TRUE(bit_equal(target.state_dict(), before)) << "a check changes nothing";
  target.restore(saved);
  EXPECT_TRUE(bit_equal(target.state_dict(), saved));
}

TEST_F(Restore, writes_into_the_memory_that_is_there) {
  const void* memory = target.hidden.weight.value().raw();
  const void* buffer = target.counts.raw();
  target.restore(saved);
  EXPECT_EQ(target.hidden.weight.value().raw(), memory);
  EXPECT_EQ(target.counts.raw(), buffer);
  EXPECT_NE(saved.at("counts").as_tensor().raw(), buffer);
}

TEST_F(Restore, of_a_modules_own_state_changes_nothing) {
  target.restore(target.state_dict());
  EXPECT_TRUE(bit_equal(target.state_dict(), before));
}

TEST_F(Restore, has_no_gradients_and_no_modes) {
  EXPECT_EQ(saved.size(), 4U);
  for (const char* key : {"hidden.weight", "hidden.bias", "dropout.random", "counts"}) {
    EXPECT_TRUE(saved.contains(key)) << key;
  }
}

TEST_F(Restore, refuses_another_shape) {
  EXPECT_TRUE(refused<ShapeError>(
      [](StateDict& s) {
        s["hidden.weight"] = Tensor::zeros({3, 4});
      },
      "hidden.weight", "(4, 3)", "(3, 4)"));
  EXPECT_TRUE(refused<ShapeError>(
      [](StateDict& s) { s["counts"] = Tensor::zeros({3}, DType::i64); }, "counts", "(2)", "(3)"));
}

TEST_F(Restore, refuses_another_dtype) {
  EXPECT_TRUE(
      refused<DTypeError>([](StateDict& s) { s["hidden.bias"] = Tensor::zeros({4}, DType::f64); },
                          "hidden.bias", "f64"));
}

TEST_F(Restore, refuses_another_kind) {
  EXPECT_TRUE(refused<StateError>([](StateDict& s) { s["hidden.bias"] = 1; }, "hidden.bias",
                                  "a tensor", "an integer"));
  EXPECT_TRUE(
      refused<StateError>([](StateDict& s) { s["hidden.bias"] = Tensor(); }, "hidden.bias"));
  EXPECT_TRUE(refused<StateError>([](StateDict& s) { s["dropout.random"] = Tensor::zeros({}); },
                                  "dropout.random", "a dict"));
  EXPECT_TRUE(refused<StateError>([](StateDict& s) { s["dropout.random"].as_dict()["seed"] = 1.5; },
                                  "dropout.random.seed", "an integer", "a double"));
}

TEST_F(Restore, refuses_a_missing_or_unexpected_entry) {
  EXPECT_TRUE(
      refused<StateError>([](StateDict& s) { s = without(s, "counts"); }, "'counts'", "lacks"));
  EXPECT_TRUE(refused<StateError>([](StateDict& s) { s["hidden.scale"] = Tensor::zeros({}); },
                                  "'hidden.scale'", "the model lacks"));
  EXPECT_TRUE(refused<StateError>(
      [](StateDict& s) { s["dropout.random"] = without(s["dropout.random"].as_dict(), "calls"); },
      "'dropout.random.calls'"));
  EXPECT_TRUE(refused<StateError>([](StateDict& s) { s["dropout.random"].as_dict()["more"] = 1; },
                                  "'dropout.random.more'"));
}

}  // namespace restore_test
}  // namespace lockstep::nn
