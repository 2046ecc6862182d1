// Models and optimizers that go through safetensors files.
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/temporary_folder.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/checkpoint/safetensors.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/combined_optimizer.hpp"
#include "lockstep/optim/lbfgs.hpp"
#include "lockstep/optim/nadam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace safetensors_state_test {

using testing::throws;

// A model with all that a state has: buffers, random state, and a parameter without axes in f64.
struct Model : nn::Module {
  nn::Sequential net{nn::Linear(3, 4), nn::BatchNorm(4), nn::Dropout(0.5), nn::Linear(4, 2)};
  Parameter gain{Tensor::full({}, 1.25, DType::f64)};

  void visit(nn::Visitor& visitor) override {
    visitor("net", net);
    visitor("gain", gain);
  }
  Variable forward(const Variable& x) override { return net(x); }

  explicit Model(std::uint64_t seed = 1) { initialize(seed); }
};

struct Training {
  Model model;
  NamedOptimizer optimizer;

  explicit Training(const optim::UpdateRule& rule, std::uint64_t seed = 1)
      : model(seed),
        optimizer(model.named_parameters(), rule,
                  {{.params = "*.weight", .name = "weights.of.all"},
                   {.params = {"*.bias", "gain"}, .lr = 0.25, .name = "rest"}}) {}

  void step() {
    optimizer.zero_grad();
    Tensor x = Tensor::empty({5, 3});
    fill_normal(x, RandomKey(3), 0, 1);
    sum(model(x) * model(x)).backward();
    model.gain.mutable_grad().fill(0.5);
    optimizer.step();
  }
};

class SafetensorsState : public ::testing::Test {
 protected:
  // Rewrites the file with other metadata for the optimizer, or other tensors.
  void change(const std::function<void(SafetensorsFile&)>& changing) const {
    SafetensorsFile file = read_safetensors(path_);
    changing(file);
    write_safetensors(path_, file.tensors, file.metadata);
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
};

TEST_F(SafetensorsState, a_model_alone_has_its_own_names) {
  Model model;
  export_safetensors(path_, model);
  const SafetensorsFile file = read_safetensors(path_);
  EXPECT_EQ(file.metadata.size(), 1u);  // of what the model has beside tensors
  EXPECT_TRUE(file.metadata.contains("lockstep"));
  for (const auto& [name, value] : model.state_dict()) {
    if (name == "net.2.random") continue;
    EXPECT_TRUE(bit_equal(file.tensors.at(name), value)) << name;
  }
  EXPECT_EQ(file.tensors.size(), model.state_dict().size() + 1);  // seed and calls
  Model other(2);
  ASSERT_FALSE(bit_equal(other.state_dict(), model.state_dict()));
  import_safetensors(path_, other);
  EXPECT_TRUE(bit_equal(other.state_dict(), model.state_dict()));
}

TEST_F(SafetensorsState, model_and_optimizer_come_back_to_the_bit_and_go_on_alike) {
  const std::map<std::string, std::unique_ptr<optim::UpdateRule>> rules = [] {
    std::map<std::string, std::unique_ptr<optim::UpdateRule>> all;
    all["adam"] = optim::Adam({.lr = 0.1, .beta1 = 1.0 / 3, .amsgrad = true}).clone();
    all["nadam"] = optim::NAdam({.lr = 0.1}).clone();
    all["sgd"] = optim::SGD({.lr = 0.1}).clone();
    all["momentum"] = optim::SGD({.lr = 0.1, .momentum = 0.9, .maximize = true}).clone();
    return all;
  }();
  for (const auto& [name, rule] : rules) {
    SCOPED_TRACE(name);
    Training before(*rule);
    for (int i = 0; i < 3; ++i) before.step();
    export_safetensors(path_, before.model, &before.optimizer);
    Training after(*rule, 2);
    after.step();
    import_safetensors(path_, after.model, &after.optimizer);
    EXPECT_TRUE(bit_equal(after.model.state_dict(), before.model.state_dict()));
    EXPECT_TRUE(bit_equal(after.optimizer.state_dict(), before.optimizer.state_dict()));
    before.step();
    after.step();
    EXPECT_TRUE(bit_equal(after.model.state_dict(), before.model.state_dict()));
    EXPECT_TRUE(bit_equal(after.optimizer.state_dict(), before.optimizer.state_dict()));
  }
}

TEST_F(SafetensorsState, an_optimizer_without_state_yet_comes_back_without) {
  Training before{optim::Adam()};
  export_safetensors(path_, before.model, &before.optimizer);
  Training after{optim::Adam()};
  after.step();
  import_safetensors(path_, after.model, &after.optimizer);
  EXPECT_TRUE(bit_equal(after.optimizer.state_dict(), before.optimizer.state_dict()));
}

TEST_F(SafetensorsState, slots_and_hyper_parameters_have_the_names_of_the_document) {
  Training training{optim::NAdam({.lr = 0.1})};
  training.step();
  export_safetensors(path_, training.model, &training.optimizer);
  const SafetensorsFile file = read_safetensors(path_);
  const auto tensor = [&file](const char* name) { return file.tensors.at(name).as_tensor(); };
  EXPECT_EQ(tensor("state.net.0.weight.exp_avg").shape(), Shape({4, 3}));
  EXPECT_EQ(tensor("state.net.0.weight.step").item(), 1);
  EXPECT_EQ(tensor("state.net.0.weight.step").dtype(), DType::i64);
  EXPECT_EQ(tensor("state.gain.exp_avg").dtype(), DType::f64);
  EXPECT_EQ(tensor("state.gain.mu_product").dtype(), DType::f64);
  EXPECT_EQ(tensor("param_groups.weights.of.all.lr").item(), 0.1);
  EXPECT_EQ(tensor("param_groups.rest.lr").item(), 0.25);
  EXPECT_EQ(tensor("param_groups.rest.maximize").dtype(), DType::u8);
  EXPECT_EQ(nlohmann::json::parse(file.metadata.at("optimizer")), nlohmann::json::parse(R"({
              "rule": "NAdam",
              "param_groups": [
                {"name": "weights.of.all", "params": ["net.0.weight", "net.1.weight", "net.3.weight"]},
                {"name": "rest", "params": ["gain", "net.0.bias", "net.1.bias", "net.3.bias"]}],
              "scalars": ["mu_product", "step"]})"));
}

TEST_F(SafetensorsState, combined_optimizers_come_back_as_well) {
  const auto make = [](Model& model) {
    std::vector<NamedParameter> net, rest;
    for (const NamedParameter& named : model.named_parameters()) {
      (named.name == "gain" ? rest : net).push_back(named);
    }
    return std::pair(NamedOptimizer(net, optim::Adam()), NamedOptimizer(rest, optim::NAdam()));
  };
  Model model, other(2);
  auto [adam, nadam] = make(model);
  auto [other_adam, other_nadam] = make(other);
  CombinedOptimizer optimizer({{"net", adam}, {"rest", nadam}});
  CombinedOptimizer other_optimizer({{"net", other_adam}, {"rest", other_nadam}});
  optimizer.init_state();
  optimizer.step();
  export_safetensors(path_, model, &optimizer);
  import_safetensors(path_, other, &other_optimizer);
  EXPECT_TRUE(bit_equal(other_optimizer.state_dict(), optimizer.state_dict()));
}

TEST_F(SafetensorsState, a_model_alone_is_read_from_a_file_with_an_optimizer) {
  Training training{optim::Adam()};
  training.step();
  export_safetensors(path_, training.model, &training.optimizer);
  Model model(2);
  import_safetensors(path_, model);
  EXPECT_TRUE(bit_equal(model.state_dict(), training.model.state_dict()));
}

struct Shadowing : nn::Module {
  nn::Linear state{2, 2};
  void visit(nn::Visitor& visitor) override { visitor("state", state); }
  Variable forward(const Variable& x) override { return state(x); }
};

TEST_F(SafetensorsState, a_model_whose_names_are_an_optimizers_goes_alone) {
  Shadowing model, other;
  model.initialize(1);
  other.initialize(2);
  export_safetensors(path_, model);
  import_safetensors(path_, other);
  EXPECT_TRUE(bit_equal(other.state_dict(), model.state_dict()));
  NamedOptimizer optimizer(model.named_parameters(), optim::SGD({.lr = 1}));
  EXPECT_TRUE(throws<NameError>([&] { export_safetensors(path_, model, &optimizer); },
                                "'state.bias' cannot be", "an optimizer"));
}

TEST_F(SafetensorsState, an_optimizer_with_more_state_is_refused) {
  Model model;
  optim::LBFGS optimizer(model.named_parameters());
  EXPECT_TRUE(throws<StateError>([&] { export_safetensors(path_, model, &optimizer); },
                                 "the optimizer's 'search'"));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(SafetensorsState, what_does_not_fit_is_refused_and_changes_nothing) {
  Training source{optim::Adam()};
  source.step();
  const auto is_refused = [&](const std::function<void(SafetensorsFile&)>& changing,
                              const std::string& what, const std::string& why) {
    export_safetensors(path_, source.model, &source.optimizer);
    change(changing);
    Training target(optim::Adam(), 2);
    target.step();
    const StateDict model = target.model.state_dict().clone();
    const StateDict optimizer = target.optimizer.state_dict().clone();
    const auto result =
        throws<CheckpointError>([&] { import_safetensors(path_, target.model, &target.optimizer); },
                                path_.string() + "' does not fit the " + what, why);
    if (!bit_equal(target.model.state_dict(), model) ||
        !bit_equal(target.optimizer.state_dict(), optimizer)) {
      return ::testing::AssertionFailure() << "it has changed something";
    }
    return result;
  };
  const auto with = [](const std::string& name, const StateValue& value) {
    return [=](SafetensorsFile& file) { file.tensors[name] = value; };
  };
  const auto without = [](const std::string& name) {
    return [=](SafetensorsFile& file) {
      StateDict kept;
      for (const auto& [key, value] : file.tensors) {
        if (key != name) kept[key] = value;
      }
      file.tensors = kept;
    };
  };
  const auto described = [](const std::string& text) {
    return [=](SafetensorsFile& file) { file.metadata["optimizer"] = text; };
  };
  EXPECT_TRUE(is_refused(with("gain", Tensor::zeros({2}, DType::f64)), "model", "gain"));
  EXPECT_TRUE(is_refused(with("gain", Tensor::zeros({}, DType::f32)), "model", "gain"));
  EXPECT_TRUE(is_refused(with("more", 1), "model", "has 'more', which the model lacks"));
  EXPECT_TRUE(is_refused(without("net.0.bias"), "model", "the model has 'net.0.bias'"));
  EXPECT_TRUE(is_refused(without("net.2.random.seed"), "model", "'net.2.random.seed'"));
  EXPECT_TRUE(is_refused(with("net.2.random.seed", 0.5), "model", "net.2.random.seed"));
  EXPECT_TRUE(is_refused(with("net.2.random.seed", Tensor::zeros({1}, DType::i64)), "model",
                         "'net.2.random.seed': expected one BOOL, I64 or F64 without axes"));
  EXPECT_TRUE(is_refused(without("state.gain.exp_avg"), "optimizer", "gain"));
  EXPECT_TRUE(is_refused(with("state.gain.more", Tensor::zeros({})), "optimizer", "gain"));
  EXPECT_TRUE(is_refused(with("state.gain.step", 0.5), "optimizer", "an integer"));
  EXPECT_TRUE(is_refused(with("state.gain.step", Tensor::zeros({})), "optimizer",
                         "'state.gain.step': expected one BOOL, I64 or F64"));
  EXPECT_TRUE(is_refused(with("state.stranger.step", 1), "optimizer", "stranger"));
  EXPECT_TRUE(is_refused(with("state.step", 1), "optimizer", "'state.step'"));
  EXPECT_TRUE(is_refused(without("param_groups.rest.lr"), "optimizer", "lr"));
  EXPECT_TRUE(is_refused(with("param_groups.rest.lr", -1.0), "optimizer", "lr >= 0"));
  EXPECT_TRUE(is_refused(with("param_groups.rest.lr", true), "optimizer", "'lr'"));
  EXPECT_TRUE(is_refused(with("param_groups.third.lr", 1.0), "optimizer", "3 param groups"));
  EXPECT_TRUE(is_refused([](SafetensorsFile& file) { file.metadata.clear(); }, "model",
                         "the state dict has 'param_groups.rest.amsgrad'"));
  EXPECT_TRUE(is_refused(described("no JSON"), "optimizer", "metadata 'optimizer'"));
  EXPECT_TRUE(is_refused(described("[]"), "optimizer", "metadata 'optimizer'"));
  EXPECT_TRUE(is_refused(described("{}"), "optimizer", "metadata 'optimizer'"));
  EXPECT_TRUE(is_refused(described(R"({"rule": "Adam", "scalars": [], "param_groups": {}})"),
                         "optimizer", "param groups"));
  EXPECT_TRUE(is_refused(described(R"({"rule": "Adam", "scalars": ["step"], "param_groups": [7]})"),
                         "optimizer", "metadata 'optimizer'"));
}

TEST_F(SafetensorsState, another_rule_and_a_file_without_optimizer_are_refused) {
  Training adam{optim::Adam()};
  NamedOptimizer sgd(adam.model.named_parameters(), optim::SGD({.lr = 1}));
  export_safetensors(path_, adam.model, &adam.optimizer);
  EXPECT_TRUE(throws<CheckpointError>([&] { import_safetensors(path_, adam.model, &sgd); },
                                      "the optimizer", "Adam", "SGD"));
  export_safetensors(path_, adam.model);
  EXPECT_TRUE(throws<CheckpointError>([&] { import_safetensors(path_, adam.model, &sgd); },
                                      "does not fit the optimizer", "no metadata 'optimizer'"));
}

}  // namespace safetensors_state_test
}  // namespace lockstep::checkpoint
