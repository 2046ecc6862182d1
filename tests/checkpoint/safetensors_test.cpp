// What is written to safetensors files and read from them; golden/dtypes.py makes one by itself.
#include "lockstep/checkpoint/safetensors.hpp"

#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace safetensors_test {

using testing::throws;

template <class T>
Tensor numbers(const std::vector<T>& values, const Shape& shape) {
  return Tensor::from(values, shape);
}

Tensor integers(const std::vector<std::int64_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

class Safetensors : public ::testing::Test {
 protected:
  SafetensorsFile written_and_read(const StateDict& state,
                                   const std::map<std::string, std::string>& metadata = {}) const {
    write_safetensors(path_, state, metadata);
    return read_safetensors(path_);
  }
  nlohmann::json header() const {
    const std::string bytes = testing::read_bytes(path_);
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof size);
    EXPECT_EQ(size % 8, 0u);
    return nlohmann::json::parse(bytes.substr(8, size));
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
};

TEST_F(Safetensors, every_dtype_is_read_with_its_values) {
  const SafetensorsFile file = read_safetensors(LOCKSTEP_GOLDEN_DIR "/dtypes.safetensors");
  using F64 = std::numeric_limits<double>;
  using F32 = std::numeric_limits<float>;
  const StateDict expected{{"f64", numbers<double>({0.1, -0.0, F64::denorm_min(), F64::infinity(),
                                                    -F64::infinity(), 1e300},
                                                   {2, 3})},
                           {"i64", integers({INT64_MIN, -1, 0, INT64_MAX})},
                           {"f32", numbers<float>({0.1F, F32::denorm_min(), 3.4e38F}, {3, 1})},
                           {"i32", integers({INT32_MIN, INT32_MAX})},
                           {"u32", integers({0, UINT32_MAX})},
                           {"f16", numbers<float>({1.5F, -65504, 0x1p-24F, F32::infinity()}, {4})},
                           {"bf16", numbers<float>({1.5F, -0x1.c2p127F, 0x1p-133F}, {3})},
                           {"i16", integers({INT16_MIN, INT16_MAX})},
                           {"u16", integers({0, UINT16_MAX})},
                           {"i8", integers({INT8_MIN, INT8_MAX})},
                           {"u8", numbers<std::uint8_t>({0, 255}, {1, 1, 2})},
                           {"bool", numbers<std::uint8_t>({1, 0, 1}, {3})},
                           {"a.scalar", Tensor::full({}, 2.5, DType::f64)},
                           {"empty", Tensor::zeros({3, 0})},
                           {"ünï \"quoted\"\n", Tensor::full({1}, 7, DType::u8)}};
  EXPECT_EQ(file.tensors.size(), expected.size());
  for (const auto& [name, value] : expected) {
    EXPECT_TRUE(bit_equal(file.tensors.at(name), value)) << name;
  }
  EXPECT_EQ(file.metadata,
            (std::map<std::string, std::string>{{"format", "np"}, {"text", "zwei\nZeilen, ä"}}));
}

TEST_F(Safetensors, tensors_are_kept_to_the_bit) {
  const StateDict state{
      {"f32", numbers<float>({NAN, -NAN, INFINITY, -0.0F, 1e-45F}, {5, 1})},
      {"f64", numbers<double>({std::nan("0x5ca1ab1e"), -0.0, 5e-324, 0.1}, {2, 2})},
      {"i64", integers({INT64_MIN, INT64_MAX})},
      {"layer.0.mask", numbers<std::uint8_t>({0, 1, 128, 255, 7}, {5})},
      {"nothing", Tensor::zeros({2, 0, 3}, DType::i64)},
      {"one", Tensor::full({}, 3)},
      {"wide", Tensor::full({1, 1, 1, 1, 2, 1, 1, 1}, 1)}};
  const SafetensorsFile file = written_and_read(state);
  EXPECT_TRUE(bit_equal(file.tensors, state));
  EXPECT_TRUE(file.metadata.empty());
}

TEST_F(Safetensors, an_empty_state_is_a_file_too) {
  EXPECT_TRUE(written_and_read({}).tensors.empty());
  EXPECT_EQ(testing::read_bytes(path_), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
}

TEST_F(Safetensors, dicts_and_lists_become_dotted_names_and_scalars_tensors_without_axes) {
  const SafetensorsFile file = written_and_read(
      {{"net", StateDict{{"0.weight", Tensor::full({2}, 1)}, {"deep", StateDict{{"x", 3}}}}},
       {"list", StateList{0.1, StateDict{{"text", "ä"}}, true}},
       {"no", false},
       {"seed", std::uint64_t{0xfedcba9876543210}},
       {"void", StateDict()}},
      {{"format", "lockstep"}});
  EXPECT_TRUE(bit_equal(
      file.tensors,
      {{"net.0.weight", Tensor::full({2}, 1)},
       {"net.deep.x", numbers<std::int64_t>({3}, {})},
       {"list.0", Tensor::full({}, 0.1, DType::f64)},
       {"list.2", Tensor::full({}, 1, DType::u8)},
       {"no", Tensor::full({}, 0, DType::u8)},
       {"seed", numbers<std::int64_t>({static_cast<std::int64_t>(0xfedcba9876543210)}, {})}}));
  EXPECT_EQ(file.metadata,
            (std::map<std::string, std::string>{{"format", "lockstep"}, {"list.1.text", "ä"}}));
  EXPECT_EQ(header().at("no").at("dtype"), "BOOL");
  EXPECT_EQ(header().at("seed").at("dtype"), "I64");
  EXPECT_EQ(header().at("list.0").at("dtype"), "F64");
}

TEST_F(Safetensors, every_tensor_is_aligned_to_its_elements) {
  write_safetensors(path_, {{"a", Tensor::zeros({3}, DType::u8)},
                            {"b", Tensor::zeros({3}, DType::f32)},
                            {"c", Tensor::zeros({3}, DType::f64)},
                            {"d", Tensor::zeros({3}, DType::u8)},
                            {"e", Tensor::zeros({1}, DType::i64)}});
  const auto offsets = [this](const char* name) { return header().at(name).at("data_offsets"); };
  EXPECT_EQ(offsets("c"), (std::vector<int>{0, 24}));
  EXPECT_EQ(offsets("e"), (std::vector<int>{24, 32}));
  EXPECT_EQ(offsets("b"), (std::vector<int>{32, 44}));
  EXPECT_EQ(offsets("a"), (std::vector<int>{44, 47}));
  EXPECT_EQ(offsets("d"), (std::vector<int>{47, 50}));
}

TEST_F(Safetensors, what_the_format_cannot_have_is_refused_and_leaves_the_file_as_it_was) {
  write_safetensors(path_, {{"before", 1}});
  const std::string before = testing::read_bytes(path_);
  const auto write = [this](const StateDict& state,
                            const std::map<std::string, std::string>& metadata = {}) {
    return [=, this] { write_safetensors(path_, state, metadata); };
  };
  EXPECT_TRUE(throws<NameError>(write({{"a.b", 1}, {"a", StateDict{{"b", 2}}}}), "'a.b'"));
  EXPECT_TRUE(throws<NameError>(write({{"a", "1"}}, {{"a", "2"}}), "two texts", "'a'"));
  EXPECT_TRUE(throws<NameError>(write({{"__metadata__", 1}}), "'__metadata__'"));
  EXPECT_TRUE(throws<NameError>(write({{"\xff", 1}}), "'\\ufffd'", "UTF-8"));
  EXPECT_TRUE(throws<NameError>(write({{"a", "\xc3"}}), "the text of a", "UTF-8"));
  EXPECT_TRUE(throws<StateError>(write({{"a", Tensor()}}), "'a'", "undefined"));
  EXPECT_TRUE(throws<CheckpointError>(write({{"text", std::string(100'000'000, 'x')}}),
                                      "more than the 100000000"));
  EXPECT_EQ(testing::read_bytes(path_), before);
}

TEST_F(Safetensors, a_file_that_cannot_be_written_leaves_the_one_that_was_there) {
  write_safetensors(path_, {{"before", 1}});
  const std::string before = testing::read_bytes(path_);
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 200, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        write_safetensors(path_, {{"tensor", Tensor::zeros({100})}});
      },
      "cannot write", "File too large"));
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(testing::read_bytes(path_), before);
  EXPECT_FALSE(std::filesystem::exists(path_.string() + ".tmp"));
  EXPECT_TRUE(throws<CheckpointError>([&] { write_safetensors(folder_ / "none/file", {}); },
                                      "cannot create", "No such file or directory"));
}

}  // namespace safetensors_test
}  // namespace lockstep::checkpoint
