#include "lockstep/nn/module.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace module_test {

using testing::throws;

// The model of the reference tests.
struct Net : Module {
  Sequential net1{Linear(8, 16), ReLU()};
  Sequential net2{Linear(16, 32), ReLU()};
  Linear net3{32, 64};
  Sequential net4{ReLU(), Linear(64, 8)};

  void visit(Visitor& visitor) override {
    visitor("net1", net1);
    visitor("net2", net2);
    visitor("net3", net3);
    visitor("net4", net4);
  }
  Variable forward(const Variable& x) override { return net4(net3(net2(net1(x)))); }
};

// One that lists what the test says.
struct Custom : Module {
  std::function<void(Visitor&)> members;

  explicit Custom(std::function<void(Visitor&)> list) : members(std::move(list)) {}
  void visit(Visitor& visitor) override { members(visitor); }
  Variable forward(const Variable& x) override { return x; }
};

std::vector<std::string> names(const Module& module) {
  std::vector<std::string> found;
  for (const NamedParameter& named : module.named_parameters()) found.push_back(named.name);
  return found;
}

TEST(Module, names_parameters_by_their_paths_in_order_of_registration) {
  const Net net;
  EXPECT_EQ(names(net), (std::vector<std::string>{"net1.0.weight", "net1.0.bias", "net2.0.weight",
                                                  "net2.0.bias", "net3.weight", "net3.bias",
                                                  "net4.1.weight", "net4.1.bias"}));
  const std::vector<NamedParameter> named = net.named_parameters();
  EXPECT_EQ(named[0].parameter.shape(), (Shape{16, 8}));
  EXPECT_EQ(named[7].parameter.shape(), Shape{8});
  EXPECT_EQ(named[4].parameter, net.net3.weight);
  EXPECT_EQ(net.parameters().size(), 8U);
  EXPECT_EQ(net.parameters()[4], net.net3.weight);
}

TEST(Module, runs_forward_and_backward_through_its_children) {
  Net net;
  const Variable y = net(Tensor::full({2, 8}, 1));
  EXPECT_EQ(y.shape(), (Shape{2, 8}));
  sum(y).backward();
  for (const Parameter& parameter : net.parameters()) EXPECT_TRUE(parameter.has_grad());
  net.zero_grad(false);
  for (const Parameter& parameter : net.parameters()) EXPECT_TRUE(parameter.has_grad());
  net.zero_grad();
  for (const Parameter& parameter : net.parameters()) EXPECT_FALSE(parameter.has_grad());
}

TEST(Module, may_have_parameters_buffers_and_children_of_its_own) {
  Parameter scale(Tensor::zeros({}));
  Tensor running = Tensor::full({3}, 2), absent;
  Linear child(2, 1);
  const Custom model([&](Visitor& visitor) {
    visitor("scale", scale);
    visitor("child", child);
    visitor("running", running);
    visitor("absent", absent);
  });
  EXPECT_EQ(names(model), (std::vector<std::string>{"scale", "child.weight", "child.bias"}));
  const auto buffers = model.named_buffers();
  ASSERT_EQ(buffers.size(), 1U);
  EXPECT_EQ(buffers[0].first, "running");
  EXPECT_EQ(buffers[0].second.raw(), running.raw());
  EXPECT_EQ(model.state_dict().size(), 4U);
}

TEST(Module, of_no_parameters_is_fine) {
  ReLU relu;
  EXPECT_TRUE(relu.named_parameters().empty());
  EXPECT_TRUE(relu.state_dict().empty());
  EXPECT_NO_THROW(relu.initialize(1));
  EXPECT_NO_THROW(relu.restore({}));
}

TEST(Module, names_modules_from_itself_down_each_once) {
  Sequential inner{Linear(2, 2), Sequential{ReLU()}};
  Linear last(2, 2);
  Custom model([&](Visitor& visitor) {
    visitor("inner", inner);
    visitor("again", inner);
    visitor("last", last);
  });
  auto& nested = inner.at<Sequential>(1);
  EXPECT_EQ(model.named_modules(),
            (std::vector<std::pair<std::string, Module*>>{{"", &model},
                                                          {"inner", &inner},
                                                          {"inner.0", &inner[0]},
                                                          {"inner.1", &nested},
                                                          {"inner.1.0", &nested[0]},
                                                          {"last", &last}}));
}

TEST(Module, shows_tied_parameters_once_under_the_first_name) {
  Linear encoder(3, 3), decoder(3, 3);
  decoder.weight = encoder.weight;
  Custom model([&](Visitor& visitor) {
    visitor("encoder", encoder);
    visitor("decoder", decoder);
  });
  EXPECT_EQ(names(model),
            (std::vector<std::string>{"encoder.weight", "encoder.bias", "decoder.bias"}));
  EXPECT_EQ(model.state_dict().size(), 3U);
  EXPECT_NO_THROW(model.restore(model.state_dict().clone()));
}

TEST(Module, refuses_two_members_of_one_name) {
  Linear a(2, 2), b(2, 2);
  Parameter p(Tensor::zeros({2}));
  Tensor buffer = Tensor::zeros({2});
  RandomState random;
  const Custom children([&](Visitor& visitor) { visitor("x", a), visitor("x", b); });
  EXPECT_TRUE(throws<NameError>([&] { children.named_parameters(); }, "'x.weight'"));
  const Custom dotted([&](Visitor& visitor) { visitor("a.weight", p), visitor("a", a); });
  EXPECT_TRUE(throws<NameError>([&] { dotted.named_parameters(); }, "'a.weight'"));
  const Custom buffers([&](Visitor& visitor) { visitor("x", buffer), visitor("x", buffer); });
  EXPECT_TRUE(throws<NameError>([&] { buffers.state_dict(); }, "'x'"));
  const Custom mixed([&](Visitor& visitor) { visitor("x", p), visitor("x", buffer); });
  EXPECT_TRUE(throws<NameError>([&] { mixed.state_dict(); }, "'x'"));
  const Custom randoms([&](Visitor& visitor) { visitor("x", p), visitor("x", random); });
  EXPECT_TRUE(throws<NameError>([&] { randoms.state_dict(); }, "'x'"));
}

TEST(Module, hands_training_and_evaluation_down) {
  Sequential inner{Dropout(0.5), Linear(2, 2)};
  Custom model([&](Visitor& visitor) { visitor("inner", inner); });
  EXPECT_TRUE(inner[0].training());
  model.eval();
  EXPECT_FALSE(model.training());
  EXPECT_FALSE(inner.training());
  EXPECT_FALSE(inner[0].training());
  EXPECT_FALSE(inner[1].training());
  model.train();
  EXPECT_TRUE(model.training());
  EXPECT_TRUE(inner[0].training());
}

TEST(Module, freezes_all_parameters) {
  Net net;
  net.set_requires_grad(false);
  EXPECT_FALSE(net(Tensor::full({2, 8}, 1)).requires_grad());
  net.set_requires_grad(true);
  EXPECT_TRUE(net(Tensor::full({2, 8}, 1)).requires_grad());
}

TEST(Initialize, gives_the_same_numbers_for_a_seed_and_others_for_another) {
  Net a, b;
  EXPECT_TRUE(bit_equal(a.state_dict(), b.state_dict()));
  a.initialize(5);
  EXPECT_FALSE(bit_equal(a.state_dict(), b.state_dict()));
  b.initialize(5);
  EXPECT_TRUE(bit_equal(a.state_dict(), b.state_dict()));
  b.initialize(6);
  for (const auto& [name, value] : a.state_dict()) {
    EXPECT_FALSE(bit_equal(value, b.state_dict().at(name))) << name;
  }
}

TEST(Initialize, gives_equal_layers_numbers_of_their_own) {
  Sequential model{Linear(4, 4), Linear(4, 4)};
  EXPECT_TRUE(bit_equal(model.at<Linear>(0).weight.value(), model.at<Linear>(1).weight.value()));
  model.initialize(5);
  EXPECT_FALSE(bit_equal(model.at<Linear>(0).weight.value(), model.at<Linear>(1).weight.value()));
  const Linear& layer = model.at<Linear>(0);
  EXPECT_FALSE(bit_equal(layer.weight.value().window(0, {4}), layer.bias.value()));
}

TEST(Initialize, depends_on_seed_and_name_alone) {
  Net plain;
  plain.initialize(5);
  const StateDict expected = plain.state_dict().clone();

  // More layers, in front and behind, drawn before in another way.
  Net inner;
  Linear before(7, 3), after(64, 64);
  Custom larger([&](Visitor& visitor) {
    visitor("before", before);
    inner.visit(visitor);
    visitor("after", after);
  });
  larger.initialize(1);
  larger.initialize(5);
  const StateDict found = larger.state_dict();
  for (const auto& [name, value] : expected) EXPECT_TRUE(bit_equal(found.at(name), value)) << name;
}

TEST(Initialize, of_a_tied_parameter_goes_by_its_first_name) {
  Linear alone(3, 3), tied(3, 3), other(3, 3);
  Custom first([&](Visitor& visitor) { visitor("first", alone); });
  first.initialize(5);
  other.weight = tied.weight;
  Linear same = tied;
  Custom all([&](Visitor& visitor) {
    visitor("first", tied);
    visitor("other", other);
    visitor("same", same);
  });
  all.initialize(5);
  EXPECT_TRUE(bit_equal(tied.weight.value(), alone.weight.value()));
  EXPECT_TRUE(bit_equal(tied.bias.value(), alone.bias.value()));
}

TEST(Initialize, draws_in_place) {
  Linear layer(3, 2);
  const void* memory = layer.weight.value().raw();
  layer.initialize(9);
  EXPECT_EQ(layer.weight.value().raw(), memory);
}

// A user's own layer draws its own parameters.
struct Scale : Module {
  Parameter factor{Tensor::zeros({2})};
  void visit(Visitor& visitor) override { visitor("factor", factor); }
  Variable forward(const Variable& x) override { return x * factor; }

 protected:
  void reset_parameters(RandomKey key) override {
    fill_uniform(factor.mutable_value(), key.fold("factor"), 1, 2);
  }
};

TEST(Initialize, asks_modules_of_the_users_own) {
  Scale scale;
  Custom model([&](Visitor& visitor) { visitor("scale", scale); });
  model.initialize(3);
  EXPECT_GE(scale.factor.value().data<float>()[0], 1);
  Scale root;
  root.initialize(3);
  EXPECT_GE(root.factor.value().data<float>()[0], 1);
}

}  // namespace module_test
}  // namespace lockstep::nn
