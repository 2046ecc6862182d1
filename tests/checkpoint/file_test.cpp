#include "checkpoint/file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace file_test {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::throws;

class File : public ::testing::Test {
 protected:
  StateDict written_and_read(const StateDict& state) const {
    write_file(folder_ / "file", state);
    return read_file(folder_ / "file");
  }
  void expect_kept(const StateDict& state) const {
    EXPECT_TRUE(bit_equal(written_and_read(state), state));
  }

  TemporaryFolder folder_;
};

template <class T>
StateList scalars() {
  using limits = std::numeric_limits<T>;
  return {limits::min(), limits::max(), limits::lowest(), T{0}, T{1}, static_cast<T>(-1)};
}

template <class T>
std::vector<T> special_numbers() {
  using limits = std::numeric_limits<T>;
  return {limits::infinity(),
          -limits::infinity(),
          limits::quiet_NaN(),
          -limits::quiet_NaN(),
          T{0},
          -T{0},
          limits::denorm_min(),
          -limits::denorm_min(),
          limits::min(),
          limits::max(),
          limits::lowest(),
          limits::epsilon(),
          T(0.1)};
}

TEST_F(File, keeps_every_kind_of_value) {
  expect_kept({{"true", true},
               {"false", false},
               {"integers", scalars<std::int64_t>()},
               {"unsigned", std::uint64_t{0xfedcba9876543210}},
               {"doubles", scalars<double>()},
               {"text", "some text"},
               {"dict", StateDict{{"inner", 1}, {"list", StateList{2, 3.0, "4"}}}},
               {"tensor", Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3})}});
}

TEST_F(File, keeps_special_numbers_to_the_bit) {
  StateList reals;
  for (const double number : special_numbers<double>()) reals.emplace_back(number);
  reals.emplace_back(std::nan("0x5ca1ab1e"));
  expect_kept({{"reals", reals},
               {"f32", Tensor::from(special_numbers<float>(), {13})},
               {"f64", Tensor::from(special_numbers<double>(), {13, 1})}});
}

TEST_F(File, keeps_tensors_of_all_dtypes_and_shapes) {
  const std::vector<std::int64_t> integers{INT64_MIN, -1, 0, 1, INT64_MAX};
  const std::vector<std::uint8_t> bytes{0, 1, 127, 128, 255};
  StateDict state{{"i64", Tensor::from(integers, {5})}, {"u8", Tensor::from(bytes, {5, 1, 1})}};
  for (const DType dtype : {DType::f32, DType::f64, DType::i64, DType::u8}) {
    const std::string name(to_string(dtype));
    state[name + " scalar"] = Tensor::full({}, 7, dtype);
    state[name + " empty"] = Tensor::zeros({0}, dtype);
    state[name + " flat"] = Tensor::zeros({3, 0, 2}, dtype);
    state[name + " rank 8"] = Tensor::full({1, 2, 1, 2, 1, 2, 1, 2}, 3, dtype);
    // Around the 64 bytes to which tensors are aligned.
    for (const std::int64_t size : {63, 64, 65, 128}) {
      state[name + std::to_string(size)] = Tensor::full({size}, 9, dtype);
    }
  }
  expect_kept(state);
}

TEST_F(File, keeps_empty_things) {
  expect_kept({});
  expect_kept({{"dict", StateDict()}, {"list", StateList()}, {"text", ""}, {"", ""}});
  expect_kept({{"list", StateList{StateList(), StateDict(), StateList{StateList()}}}});
  expect_kept({{"last", Tensor::zeros({0})}});
  expect_kept({{"a", Tensor::full({5}, 1)}, {"b", Tensor::zeros({0})}});
}

TEST_F(File, keeps_names_and_texts_of_any_bytes) {
  using namespace std::string_literals;
  std::string all_bytes;
  for (int byte = 0; byte < 256; ++byte) all_bytes += static_cast<char>(byte);
  StateDict state;
  for (const std::string& name : {"a/b"s, "a/b/"s, "/"s, "two\nlines"s, "\r\n"s, "a\0b"s, "\0"s,
                                  " "s, " 5 leading"s, "Grüße, 世界 🙂"s, "17 seventeen"s,
                                  "\"quoted\\\""s, all_bytes, std::string(100000, 'n')}) {
    state[name] = name;
    state["list of " + name] = StateList{name, StateDict{{name, Tensor::full({1}, 1)}}};
  }
  expect_kept(state);
}

TEST_F(File, keeps_a_tree_of_the_greatest_depth_and_refuses_to_write_a_deeper_one) {
  StateDict state{{"leaf", 1}};
  for (int depth = 2; depth <= 64; ++depth) state = StateDict{{"d", state}};
  expect_kept(state);
  const std::string before = read_bytes(folder_ / "file");
  EXPECT_TRUE(throws<StateError>(
      [&] {
        write_file(folder_ / "file", {{"root", state}});
      },
      "'root/d/d/", "/leaf'", "nests too deep"));
  EXPECT_EQ(read_bytes(folder_ / "file"), before);
}

TEST_F(File, refuses_an_undefined_tensor_by_its_path) {
  EXPECT_TRUE(throws<StateError>(
      [&] {
        write_file(folder_ / "file", {{"a", StateDict{{"b", StateList{1, Tensor()}}}}});
      },
      "'a/b/1'", "undefined"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "file"));
}

TEST_F(File, keeps_many_names) {
  StateDict state;
  for (int i = 0; i < 20000; ++i) state["name " + std::to_string(i)] = i;
  expect_kept(state);
}

TEST_F(File, reads_into_memory_of_its_own) {
  const StateDict state{{"tensor", Tensor::full({3}, 1)}};
  write_file(folder_ / "file", state);
  const StateDict first = read_file(folder_ / "file"), second = read_file(folder_ / "file");
  EXPECT_NE(first.at("tensor").as_tensor().raw(), second.at("tensor").as_tensor().raw());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first.at("tensor").as_tensor().raw()) % 64, 0u);
}

TEST_F(File, of_equal_state_has_equal_bytes_however_it_was_made) {
  StateDict forwards, backwards;
  for (int i = 0; i < 10; ++i) forwards[std::to_string(i)] = Tensor::full({i}, i);
  for (int i = 9; i >= 0; --i) backwards[std::to_string(i)] = Tensor::full({i}, i);
  write_file(folder_ / "a", forwards);
  write_file(folder_ / "b", backwards);
  EXPECT_EQ(read_bytes(folder_ / "a"), read_bytes(folder_ / "b"));
}

TEST_F(File, is_written_to_the_folder_that_a_bare_name_means) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder_ / "");
  write_file("bare", {{"number", 1}});
  const StateDict state = read_file("bare");
  std::filesystem::current_path(before);
  EXPECT_TRUE(bit_equal(state, {{"number", 1}}));
}

TEST_F(File, is_verified_a_part_at_a_time) {
  constexpr std::int64_t size = 13'000'001;  // several blocks, the last of which is not full
  write_file(folder_ / "file",
             {{"a", Tensor::full({size}, 7, DType::u8)}, {"b", Tensor::zeros({2})}});
  std::vector<std::uint64_t> steps;
  const FileInfo info =
      verify_file(folder_ / "file", [&](std::uint64_t done) { steps.push_back(done); });
  const std::uint64_t bytes = std::filesystem::file_size(folder_ / "file");
  EXPECT_EQ(info.version, format_version);
  EXPECT_EQ(info.bytes, bytes);
  EXPECT_EQ(info.tensors, 2u);
  EXPECT_GT(steps.size(), 3u);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_EQ(steps.back(), bytes);
}

TEST_F(File, tells_of_itself_by_its_header_alone) {
  write_file(folder_ / "file", {{"a", Tensor::zeros({2})}, {"b", 1}});
  std::string bytes = read_bytes(folder_ / "file");
  const auto expect_told = [&] {
    const FileInfo info = file_info(folder_ / "file");
    EXPECT_EQ(info.version, format_version);
    EXPECT_EQ(info.bytes, bytes.size());
    EXPECT_EQ(info.tensors, 1u);
  };
  expect_told();
  bytes[bytes.size() - 17] ^= 1;  // the last of the tensor
  testing::write_bytes(folder_ / "file", bytes);
  expect_told();
  EXPECT_TRUE(throws<CheckpointError>([&] { verify_file(folder_ / "file"); }, "'a'"));
  bytes[40] ^= 1;
  testing::write_bytes(folder_ / "file", bytes);
  EXPECT_TRUE(throws<CheckpointError>([&] { file_info(folder_ / "file"); }, "its header"));
}

// The example of docs/checkpoint_format.md, as the first release wrote it.
class Version1 : public File {
 protected:
  Version1() {
    const std::vector<std::int64_t> labels{-2};
    const std::vector<std::uint8_t> mask{7, 255};
    const std::vector<double> scale{-0.0};
    const std::vector<float> weight{1, -2, std::numeric_limits<float>::infinity()};
    example_ = {{"model", StateDict{{"labels", Tensor::from(labels, {1})},
                                    {"mask", Tensor::from(mask, {2, 1})},
                                    {"scale", Tensor::from(scale, Shape())},
                                    {"weight", Tensor::from(weight, {3})}}},
                {"progress", StateDict{{"done", false},
                                       {"loss", 0.5},
                                       {"note", "two\nlines"},
                                       {"steps", StateList{-1, INT64_MAX}}}}};
  }

  const std::string path_ = LOCKSTEP_GOLDEN_DIR "/checkpoint_v1.lockstep";
  StateDict example_;
};

TEST_F(Version1, is_read_for_ever) { EXPECT_TRUE(bit_equal(read_file(path_), example_)); }

TEST_F(Version1, is_what_this_build_writes) {
  ASSERT_EQ(format_version, 1u);
  write_file(folder_ / "file", example_);
  EXPECT_EQ(read_bytes(folder_ / "file"), read_bytes(path_));
}

}  // namespace file_test
}  // namespace lockstep::checkpoint
