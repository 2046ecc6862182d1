#include "lockstep/nn/model_file.hpp"

#include <filesystem>
#include <fstream>
#include <string>

#include "lockstep/core/error.hpp"
#include "lockstep/nn/batch_norm.hpp"
#include "lockstep/nn/normalization.hpp"
#include "lockstep/nn/recurrent.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::nn {
namespace model_file_test {

using lockstep::testing::throws;

struct ModelFile : ::testing::Test {
  std::filesystem::path path = std::filesystem::temp_directory_path() / "lockstep-model-test.toml";

  Sequential read(const std::string& text) {
    std::ofstream(path) << text;
    return read_model(path);
  }
  void TearDown() override { std::filesystem::remove(path); }

  template <class E>
  ::testing::AssertionResult refuses(const std::string& text, const char* what) {
    return throws<E>([&] { read(text); }, path.string(), what);
  }
};

TEST_F(ModelFile, is_the_model_that_its_layers_make) {
  Sequential found = read(R"(
[[layer]]
type = "unflatten"
sample = [1, 6, 9]
[[layer]]
type = "conv2d"
in = 1
out = 4
kernel = [3, 2]
stride = 1
padding = [1, 0]
[[layer]]
type = "batch_norm"
channels = 4
eps = 1e-3
momentum = 0.25
[[layer]]
type = "relu"
[[layer]]
type = "max_pool2d"
kernel = 2
[[layer]]
type = "flatten"
[[layer]]
type = "linear"
in = 48
out = 6
bias = false
[[layer]]
type = "gelu"
[[layer]]
type = "dropout"
p = 0.25
[[layer]]
type = "linear"
in = 6
out = 3
[[layer]]
type = "sigmoid"
)");
  Sequential expected{Unflatten({1, 6, 9}),
                      Conv2d(1, 4, {3, 2}, {.padding = {1, 0}}),
                      BatchNorm(4, {.eps = 1e-3, .momentum = 0.25}),
                      ReLU(),
                      MaxPool2d(2),
                      Flatten(),
                      Linear(48, 6, {.bias = false}),
                      GELU(),
                      Dropout(0.25),
                      Linear(6, 3),
                      Sigmoid()};
  found.initialize(3);
  expected.initialize(3);
  EXPECT_TRUE(bit_equal(found.state_dict(), expected.state_dict()));
  Tensor x = Tensor::empty({5, 54});
  fill_normal(x, RandomKey(1), 0, 1);
  for (const bool training : {true, false}) {
    found.train(training);
    expected.train(training);
    EXPECT_TRUE(bit_equal(found(x).value(), expected(x).value()));
  }
  EXPECT_TRUE(bit_equal(found.state_dict(), expected.state_dict())) << "running statistics";
}

TEST_F(ModelFile, has_a_dtype_for_all_layers_that_do_not_say_otherwise) {
  Sequential model = read(R"(
dtype = "f64"
[[layer]]
type = "linear"
in = 2
out = 2
[[layer]]
type = "linear"
in = 2
out = 2
dtype = "f32"
[[layer]]
type = "tanh"
)");
  EXPECT_EQ(model.at<Linear>(0).weight.dtype(), DType::f64);
  EXPECT_EQ(model.at<Linear>(1).weight.dtype(), DType::f32);
}

TEST_F(ModelFile, that_is_none_is_refused_with_its_line) {
  const std::string linear = "[[layer]]\ntype = 'linear'\n";
  EXPECT_TRUE(
      refuses<DataError>(linear + "in = 2\n", "line 1: layer linear: option 'out' is missing"));
  EXPECT_TRUE(refuses<DataError>("\n\n" + linear + "in = 2\nout = 'x'\n", "line 3"));
  EXPECT_TRUE(refuses<DataError>(linear + "in = 2\nout = 0\n", "at least 1, found 0"));
  EXPECT_TRUE(refuses<DataError>(linear + "in = 2\nout = 1\nbais = true\n", "no option 'bais'"));
  EXPECT_TRUE(refuses<DataError>(linear + "in = 2\nout = 1\nbias = 2\n", "0 or 1, found 2"));
  EXPECT_TRUE(refuses<DataError>(linear + "in = 2\nout = 1\ndtype = 'f16'\n", "one of f32, f64"));
  EXPECT_TRUE(refuses<DataError>(linear + "in = 9007199254740993.5\nout = 1\n", "an integer"));
  EXPECT_TRUE(refuses<DataError>(linear + "in = {a = 1}\nout = 1\n", "line 1"));
  EXPECT_TRUE(refuses<DataError>("dtype = 3\n" + linear, "'dtype'"));
  EXPECT_TRUE(refuses<DataError>("name = 'x'\n" + linear, "line 1"));
  EXPECT_TRUE(refuses<DataError>("layer = 3\n", "line 1"));
  EXPECT_TRUE(refuses<DataError>("[layer]\ntype = 'relu'\n", "'layer'"));
  EXPECT_TRUE(refuses<DataError>("[[layer]]\ntype = 'relu'\np = [1, 'a']\n", "no option 'p'"));
  EXPECT_TRUE(
      refuses<DataError>("[[layer]]\ntype = 'conv2d'\nin = 1\nout = 1\nkernel = []\n", "found 0"));
  EXPECT_TRUE(
      refuses<DataError>("[[layer]]\ntype = 'conv2d'\nin = 1\nout = 1\nkernel = 1.5\n", "1.5"));
  EXPECT_TRUE(refuses<DataError>("[[layer]]\ntype = 'relu\n", "line 2"));
  std::filesystem::remove(path);
  EXPECT_TRUE(throws<DataError>([&] { read_model(path); }, path.string()));
  EXPECT_TRUE(
      throws<DataError>([&] { read_model(path.parent_path()); }, path.parent_path().string()));
}

TEST_F(ModelFile, may_have_any_layer) {
  Sequential model = read(R"(
dtype = "f64"
[[layer]]
type = "conv1d"
in = 2
out = 4
kernel = 3
padding = 1
groups = 2
[[layer]]
type = "group_norm"
groups = 2
channels = 4
[[layer]]
type = "silu"
[[layer]]
type = "avg_pool1d"
kernel = 2
[[layer]]
type = "layer_norm"
features = [4, 3]
eps = 1e-3
[[layer]]
type = "conv_transpose1d"
in = 4
out = 4
kernel = 2
stride = 2
[[layer]]
type = "lstm"
in = 6
hidden = 4
bidirectional = true
[[layer]]
type = "transformer_encoder_layer"
features = 8
heads = 2
feedforward = 5
dropout = 0
[[layer]]
type = "leaky_relu"
negative_slope = 0.2
)");
  EXPECT_EQ(model(Tensor::full({3, 2, 6}, 0.5, DType::f64)).shape(), (Shape{3, 4, 8}));
  EXPECT_EQ(model.at<LSTM>(6).weights(0, 1).input.shape(), (Shape{16, 6}));
  EXPECT_EQ(model.at<LayerNorm>(4).weight.dtype(), DType::f64);
  EXPECT_TRUE(refuses<DataError>("[[layer]]\ntype = 'conv3d'\nin = 1\nout = 1\nkernel = [1, 2]\n",
                                 "one number or 3, found 2"));
  EXPECT_TRUE(refuses<DataError>("[[layer]]\ntype = 'gru'\nin = 1\nhidden = 1\nlayers = 0\n",
                                 "layers >= 1"));
}

TEST(MakeLayer, knows_its_types_by_name) {
  EXPECT_TRUE(throws<NameError>([] { make_layer("relu6", {}); }, "'relu6'", "relu, tanh"));
  EXPECT_TRUE(
      throws<OptionError>([] { Sequential().append(std::shared_ptr<Module>()); }, "nullptr"));
  EXPECT_NE(std::dynamic_pointer_cast<Linear>(make_layer("linear", {{"in", 2}, {"out", 3.0}})),
            nullptr);
}

}  // namespace model_file_test
}  // namespace lockstep::nn
