#include "lockstep/autograd/parameter.hpp"

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "lockstep/autograd/operations.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep {
namespace parameter_test {

using testing::throws;

Tensor full(double value, const Shape& shape = {2}) {
  return Tensor::full(shape, value, DType::f64);
}
double first(const Tensor& tensor) { return tensor.data<double>()[0]; }
double gradient(const Variable& x) { return first(x.grad()); }

TEST(Parameter, requires_a_gradient_and_a_floating_value) {
  const Parameter p("k", full(1));
  EXPECT_TRUE(p.requires_grad());
  EXPECT_TRUE(p.is_leaf());
  EXPECT_FALSE(p.has_grad());
  EXPECT_EQ(p.name(), "k");
  EXPECT_EQ(Parameter(full(1)).name(), "");
  EXPECT_THROW(Parameter(Tensor::zeros({2}, DType::i64)), DTypeError);
  EXPECT_THROW(Parameter{Tensor()}, StateError);
  EXPECT_THROW(Parameter().name(), StateError);
}

TEST(Parameter, copies_are_the_same_parameter) {
  Parameter p(full(1));
  Parameter copy = p;
  EXPECT_EQ(p, copy);
  copy.mutable_value().fill(4);
  EXPECT_EQ(first(p.value()), 4);
  sum(p).backward();
  EXPECT_EQ(gradient(copy), 1);
}

TEST(Parameter, named_needs_a_name) {
  EXPECT_EQ(NamedParameter(Parameter("k", full(1))).name, "k");
  EXPECT_EQ(NamedParameter("other", Parameter("k", full(1))).name, "other");
  EXPECT_TRUE(throws<NameError>([] { NamedParameter{Parameter(full(1))}; }, "no name"));
}

TEST(Parameter, mutable_grad_makes_a_gradient_of_zeros) {
  Parameter p(full(1));
  EXPECT_EQ(first(p.mutable_grad()), 0);
  EXPECT_TRUE(p.has_grad());
  p.mutable_grad().fill(5);
  EXPECT_EQ(gradient(p), 5);
  sum(p).backward();
  EXPECT_EQ(gradient(p), 6);
  p.zero_grad();
  EXPECT_EQ(first(p.mutable_grad()), 0) << "what was there before zero_grad must not come back";
}

TEST(Parameter, zero_grad_forgets_or_zeroes) {
  Parameter p(full(1));
  p.zero_grad(false);
  EXPECT_FALSE(p.has_grad()) << "zeroing makes no gradient where there is none";
  sum(p).backward();
  p.zero_grad(false);
  EXPECT_EQ(gradient(p), 0);
  sum(p * 3.0).backward();
  EXPECT_EQ(gradient(p), 3);
  p.zero_grad();
  EXPECT_FALSE(p.has_grad());
  sum(p * 4.0).backward();
  EXPECT_EQ(gradient(p), 4);
}

TEST(Parameter, that_is_frozen_gets_no_gradient) {
  Parameter frozen(full(2)), trained(full(3));
  frozen.set_requires_grad(false);
  sum(frozen * trained).backward();
  EXPECT_FALSE(frozen.has_grad());
  EXPECT_EQ(gradient(trained), 2);
  EXPECT_FALSE((frozen * 2.0).requires_grad());
  frozen.set_requires_grad(true);
  sum(frozen * trained).backward();
  EXPECT_EQ(gradient(frozen), 3);
}

TEST(Hook, is_called_once_a_backward_with_the_whole_gradient) {
  Parameter p(full(2)), other(full(1));
  std::vector<double> seen;
  p.register_hook([&](const Parameter& found) {
    EXPECT_EQ(found, p);
    seen.push_back(gradient(found));
  });
  sum(p * p + p).backward();
  EXPECT_EQ(seen, std::vector<double>{5});
  sum(p).backward();
  EXPECT_EQ(seen, (std::vector<double>{5, 6})) << "it sees what earlier backwards left too";
  sum(other).backward();
  EXPECT_EQ(seen.size(), 2U);
}

TEST(Hook, are_called_in_order_until_removed) {
  Parameter p(full(1));
  std::string calls;
  p.register_hook([&](const Parameter&) { calls += "a"; });
  const std::int64_t b = p.register_hook([&](const Parameter&) { calls += "b"; });
  p.register_hook([&](const Parameter&) { calls += "c"; });
  sum(p).backward();
  p.remove_hook(b);
  p.remove_hook(b);
  p.remove_hook(99);
  sum(p).backward();
  EXPECT_EQ(calls, "abcac");
  EXPECT_NE(p.register_hook([](const Parameter&) {}), b);
}

TEST(Hook, may_remove_itself_and_add_another) {
  Parameter p(full(1));
  std::string calls;
  std::int64_t once = 0;
  once = p.register_hook([&](const Parameter& found) {
    calls += "once ";
    Parameter handle = found;
    handle.remove_hook(once);
    handle.register_hook([&](const Parameter&) { calls += "added "; });
  });
  p.register_hook([&](const Parameter&) { calls += "always "; });
  sum(p).backward();
  EXPECT_EQ(calls, "once always ");
  sum(p).backward();
  EXPECT_EQ(calls, "once always always added ");
}

TEST(Hook, runs_as_soon_as_its_parameter_is_complete) {
  Parameter early(full(2)), late(full(3));
  std::vector<std::string> order;
  late.register_hook([&](const Parameter&) {
    order.emplace_back("late");
    EXPECT_FALSE(early.has_grad());
  });
  early.register_hook([&](const Parameter&) { order.emplace_back("early"); });
  sum((early * 2.0) * 3.0 * late).backward();
  EXPECT_EQ(order, (std::vector<std::string>{"late", "early"}));
}

TEST(Hook, may_step_the_parameter) {
  Parameter p(full(2));
  p.register_hook([](const Parameter& found) {
    Parameter handle = found;
    handle.mutable_value().fill(first(found.value()) - 0.5 * gradient(found));
    handle.zero_grad();
  });
  sum(p * p).backward();
  EXPECT_EQ(first(p.value()), 0);
  EXPECT_FALSE(p.has_grad());
}

TEST(Hook, that_throws_leaves_the_engine_usable) {
  Parameter p(full(2)), q(full(3));
  const std::int64_t bad =
      p.register_hook([](const Parameter&) { throw std::runtime_error("in a hook"); });
  const Variable loss = sum(p * q + p + q * q);
  EXPECT_TRUE(throws<std::runtime_error>([&] { loss.backward(); }, "in a hook"));
  p.remove_hook(bad);
  p.zero_grad();
  q.zero_grad();
  int called = 0;
  p.register_hook([&](const Parameter&) { ++called; });
  sum(p * q + p).backward();
  EXPECT_EQ(gradient(p), 4);
  EXPECT_EQ(gradient(q), 2);
  EXPECT_EQ(called, 1);
}

TEST(Hook, is_called_after_backwards_that_failed_before_they_reached_it) {
  Parameter p(full(2));
  int called = 0;
  p.register_hook([&](const Parameter&) { ++called; });
  const Variable used_up = p * 2.0;
  sum(used_up).backward();
  EXPECT_THROW(sum(used_up * p).backward(), StateError);
  sum(p).backward();
  EXPECT_EQ(called, 2);
  const auto fail = [](const Tensor&, std::span<autograd::GradientSlot>) {
    throw std::runtime_error("in an operation");
  };
  EXPECT_THROW(autograd::record(full(0, {}), {p * 1.0, p}, fail).backward(), std::runtime_error);
  sum(p).backward();
  EXPECT_EQ(called, 3);
}

TEST(Hook, keeps_no_graph_alive_and_outlives_handles) {
  std::optional<Parameter> p(full(1));
  int called = 0;
  p->register_hook([&](const Parameter&) { ++called; });
  const Variable loss = sum(*p * 2.0);
  p.reset();
  loss.backward();
  EXPECT_EQ(called, 1);
}

// Logs what it is told, as one line of words.
class Log : public autograd::GradientOwner {
 public:
  bool open(std::size_t index) override {
    add("open", index);
    return accumulate;
  }
  void complete(std::size_t index) override { add("complete", index); }
  void finish() override { events += "finish "; }
  void abandon() noexcept override { events += "abandon "; }

  bool accumulate = false;
  std::string events;

 private:
  void add(const char* what, std::size_t index) { events += what + std::to_string(index) + " "; }
};

class Owned : public ::testing::Test {
 protected:
  // The two parameters' values and gradients lie in one buffer each.
  Owned() {
    for (std::size_t i = 0; i < 2; ++i) {
      const auto at = static_cast<std::int64_t>(2 * i);
      parameters[i].rebind(values.window(at, {2}), gradients.window(at, {2}), &owner, i);
    }
  }

  Parameter parameters[2] = {Parameter(full(2)), Parameter(full(3))};
  Parameter& p = parameters[0];
  Parameter& q = parameters[1];
  Tensor values = full(0, {4}), gradients = full(-7, {4});
  Log owner;
};

TEST_F(Owned, values_move_into_the_owners_memory) {
  EXPECT_EQ(p.gradient_owner(), &owner);
  EXPECT_EQ(p.layout_epoch(), 1U);
  EXPECT_EQ(p.value().raw(), values.raw());
  EXPECT_EQ(first(p.value()), 2);
  EXPECT_EQ(first(values.window(2, {1})), 3);
  EXPECT_FALSE(p.has_grad());
  EXPECT_EQ(first(gradients), -7);
}

TEST_F(Owned, backward_tells_of_each_parameter_once_and_writes_in_place) {
  sum(p * p + p * q).backward();
  EXPECT_EQ(owner.events.substr(owner.events.size() - 7), "finish ");
  for (const char* event : {"open0 ", "open1 ", "complete0 ", "complete1 "}) {
    const std::size_t found = owner.events.find(event);
    ASSERT_NE(found, std::string::npos) << event << "in " << owner.events;
    EXPECT_EQ(owner.events.find(event, found + 1), std::string::npos) << owner.events;
  }
  EXPECT_LT(owner.events.find("open0"), owner.events.find("complete0"));
  EXPECT_LT(owner.events.find("open1"), owner.events.find("complete1"));
  EXPECT_EQ(owner.events.find("abandon"), std::string::npos);
  EXPECT_EQ(first(gradients), 7);
  EXPECT_EQ(first(gradients.window(2, {1})), 2);
  EXPECT_EQ(p.grad().raw(), gradients.raw());
}

TEST_F(Owned, only_the_reached_parameter_is_opened) {
  sum(q).backward();
  EXPECT_EQ(owner.events, "open1 complete1 finish ");
  EXPECT_FALSE(p.has_grad());
  EXPECT_EQ(first(gradients), -7);
}

TEST_F(Owned, the_owner_decides_whether_a_backward_adds) {
  sum(p).backward();
  sum(p * 2.0).backward();
  EXPECT_EQ(first(gradients), 2) << "replaced";
  owner.accumulate = true;
  sum(p * 4.0 + p).backward();
  EXPECT_EQ(first(gradients), 7) << "added";
}

TEST_F(Owned, hooks_run_before_the_owner_is_told) {
  std::string before;
  p.register_hook([&](const Parameter&) { before = owner.events; });
  sum(p).backward();
  EXPECT_EQ(before, "open0 ");
}

TEST_F(Owned, a_backward_that_throws_is_abandoned) {
  q.register_hook([](const Parameter&) { throw std::runtime_error("in a hook"); });
  EXPECT_THROW(sum(p * 2.0 * q).backward(), std::runtime_error);
  EXPECT_EQ(owner.events.substr(owner.events.size() - 8), "abandon ");
  EXPECT_EQ(owner.events.find("finish"), std::string::npos);
}

TEST_F(Owned, a_backward_that_cannot_begin_tells_the_owner_nothing) {
  const Variable loss = sum(p * 2.0);
  loss.backward();
  owner.events.clear();
  EXPECT_THROW(loss.backward(), StateError);
  EXPECT_EQ(owner.events, "");
}

TEST_F(Owned, a_frozen_parameter_is_not_opened) {
  p.set_requires_grad(false);
  sum(p * q).backward();
  EXPECT_EQ(owner.events, "open1 complete1 finish ");
}

TEST_F(Owned, a_graph_built_before_the_move_ends_in_the_owners_memory) {
  Parameter late(full(5));
  const Variable loss = sum(late * late);
  Tensor memory = full(0, {2}), gradient_memory = full(0, {2});
  late.rebind(memory, gradient_memory, &owner, 9);
  loss.backward();
  EXPECT_EQ(owner.events, "open9 complete9 finish ");
  EXPECT_EQ(first(gradient_memory), 10);
}

TEST_F(Owned, rebind_takes_a_gradient_along_and_can_end_the_ownership) {
  sum(p * 6.0).backward();
  Tensor memory = full(0), gradient_memory = full(0);
  p.rebind(memory, gradient_memory, nullptr, 0);
  EXPECT_EQ(p.gradient_owner(), nullptr);
  EXPECT_EQ(p.layout_epoch(), 2U);
  EXPECT_EQ(first(memory), 2);
  EXPECT_EQ(gradient(p), 6);
  EXPECT_EQ(p.grad().raw(), gradient_memory.raw());
  owner.events.clear();
  sum(p).backward();
  EXPECT_EQ(owner.events, "");
  EXPECT_EQ(gradient(p), 7);
}

TEST_F(Owned, rebind_refuses_memory_of_another_shape_or_dtype) {
  EXPECT_THROW(p.rebind(full(0, {3}), full(0), nullptr, 0), ShapeError);
  EXPECT_THROW(p.rebind(full(0), full(0, {3}), nullptr, 0), ShapeError);
  EXPECT_THROW(p.rebind(Tensor::zeros({2}), full(0), nullptr, 0), DTypeError);
  EXPECT_THROW(p.rebind(full(0), Tensor::zeros({2}), nullptr, 0), DTypeError);
  EXPECT_EQ(p.gradient_owner(), &owner);
  EXPECT_EQ(p.layout_epoch(), 1U);
  EXPECT_EQ(p.value().raw(), values.raw());
}

TEST_F(Owned, set_has_grad_changes_no_numbers) {
  p.set_has_grad(true);
  EXPECT_EQ(gradient(p), -7);
  p.set_has_grad(false);
  EXPECT_FALSE(p.has_grad());
  EXPECT_EQ(first(gradients), -7);
}

}  // namespace parameter_test
}  // namespace lockstep
