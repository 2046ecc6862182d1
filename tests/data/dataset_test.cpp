#include "lockstep/data/dataset.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace dataset_test {

using namespace std::string_literals;
using data::Batch;
using data::read_idx_dataset;
using data::TensorDataset;
using i64 = std::int64_t;

Batch take(const data::Dataset& dataset, const std::vector<i64>& indices) {
  return dataset.batch(indices);
}

template <class T>
std::vector<T> values(const Tensor& tensor) {
  const auto span = tensor.span<T>();
  return {span.begin(), span.end()};
}

// Row i is (10·i, 10·i + 1), and its target i.
TensorDataset floats(i64 size) {
  std::vector<double> inputs;
  std::vector<i64> targets;
  for (i64 i = 0; i < size; ++i) {
    inputs.push_back(10.0 * static_cast<double>(i));
    inputs.push_back(10.0 * static_cast<double>(i) + 1);
    targets.push_back(i);
  }
  return {Tensor::from(inputs, {size, 2}), Tensor::from(targets, {size})};
}

TEST(TensorDataset, gives_the_rows_asked_for_in_their_order) {
  const Batch batch = take(floats(5), {4, 0, 4});
  EXPECT_EQ(batch.size(), 3);
  EXPECT_EQ(batch.inputs.shape(), (Shape{3, 2}));
  EXPECT_EQ(values<double>(batch.inputs), (std::vector<double>{40, 41, 0, 1, 40, 41}));
  EXPECT_EQ(values<i64>(batch.targets), (std::vector<i64>{4, 0, 4}));
}

TEST(TensorDataset, scales_bytes_by_mean_and_stddev) {
  const std::vector<std::uint8_t> pixels{0, 255, 51, 204};
  const Tensor inputs = Tensor::from(pixels, {2, 1, 2});
  const Tensor targets = Tensor::zeros({2}, DType::i64);
  const TensorDataset dataset(inputs, targets, {.mean = 0.5, .stddev = 0.25, .dtype = DType::f64});
  const Batch batch = take(dataset, {1, 0});
  EXPECT_EQ(batch.inputs.shape(), (Shape{2, 1, 2}));
  const auto found = values<double>(batch.inputs);
  const std::vector<double> expected{-1.2, 1.2, -2, 2};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_DOUBLE_EQ(found[i], expected[i]);

  const TensorDataset plain(inputs, targets);
  EXPECT_EQ(values<float>(take(plain, {0, 1}).inputs), (std::vector<float>{0, 1, 0.2F, 0.8F}));
}

TEST(TensorDataset, gives_an_empty_batch_for_no_indices) {
  const Batch batch = take(floats(3), {});
  EXPECT_EQ(batch.size(), 0);
  EXPECT_EQ(batch.inputs.shape(), (Shape{0, 2}));
  EXPECT_EQ(batch.targets.shape(), Shape{0});
  const TensorDataset bytes(Tensor::zeros({2, 4}, DType::u8), Tensor::zeros({2}));
  EXPECT_EQ(take(bytes, {}).inputs.shape(), (Shape{0, 4}));
  EXPECT_EQ(take(bytes, {}).inputs.dtype(), DType::f32);
}

TEST(TensorDataset, allows_empty_datasets_and_empty_rows) {
  EXPECT_EQ(take(floats(0), {}).size(), 0);
  const TensorDataset rows(Tensor::zeros({2, 0}, DType::u8), Tensor::zeros({2, 0}));
  EXPECT_EQ(take(rows, {1, 1, 0}).inputs.shape(), (Shape{3, 0}));
}

TEST(TensorDataset, gives_batches_memory_of_their_own) {
  const TensorDataset dataset = floats(2);
  Batch batch = take(dataset, {0, 1});
  batch.inputs.fill(-1);
  batch.targets.fill(-1);
  EXPECT_EQ(values<double>(take(dataset, {0}).inputs), (std::vector<double>{0, 1}));
  EXPECT_EQ(values<i64>(take(dataset, {1}).targets), std::vector<i64>{1});
}

TEST(TensorDataset, refuses_indices_outside_the_dataset) {
  const TensorDataset dataset = floats(3);
  EXPECT_EQ(message_of<DataError>([&] {
              take(dataset, {0, 3});
            }),
            "sample 3 is outside a dataset of 3 samples");
  EXPECT_THROW(take(dataset, {-1}), DataError);
  EXPECT_THROW(take(floats(0), {0}), DataError);
}

TEST(TensorDataset, refuses_tensors_and_options_that_do_not_fit) {
  const Tensor four = Tensor::zeros({4, 2});
  const Tensor five = Tensor::zeros({5});
  EXPECT_THROW(TensorDataset(four, five), ShapeError);
  EXPECT_THROW(TensorDataset(four, Tensor::zeros({})), ShapeError);
  EXPECT_THROW(TensorDataset(Tensor(), five), ShapeError);
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(TensorDataset(five, five, {.stddev = 0}), OptionError);
  EXPECT_THROW(TensorDataset(five, five, {.stddev = nan}), OptionError);
  EXPECT_THROW(TensorDataset(five, five, {.mean = nan}), OptionError);
  EXPECT_THROW(TensorDataset(five, five, {.dtype = DType::i64}), OptionError);
}

TEST(Batch, slices_into_views) {
  const Batch batch = take(floats(5), {0, 1, 2, 3, 4});
  const Batch part = batch.slice(1, 3);
  EXPECT_EQ(part.size(), 2);
  EXPECT_EQ(values<double>(part.inputs), (std::vector<double>{10, 11, 20, 21}));
  EXPECT_EQ(values<i64>(part.targets), (std::vector<i64>{1, 2}));
  EXPECT_EQ(part.inputs.raw(), batch.inputs.data<double>() + 2);
  EXPECT_EQ(batch.slice(5, 5).size(), 0);
  EXPECT_THROW(batch.slice(4, 6), ShapeError);
  EXPECT_EQ(Batch().size(), 0);
}

TEST(ReadIdxDataset, pairs_images_with_labels) {
  const TemporaryFolder folder;
  write_bytes(folder / "images", "\0\0\x08\x02\0\0\0\x02\0\0\0\x01"s + "\x00\xFF"s);
  write_bytes(folder / "labels", "\0\0\x08\x01\0\0\0\x02\x09\x03"s);
  const TensorDataset dataset = read_idx_dataset(folder / "images", folder / "labels");
  EXPECT_EQ(dataset.size(), 2);
  const Batch batch = take(dataset, {1, 0});
  EXPECT_EQ(values<float>(batch.inputs), (std::vector<float>{1, 0}));
  EXPECT_EQ(values<i64>(batch.targets), (std::vector<i64>{3, 9}));
}

TEST(ReadIdxDataset, refuses_files_that_differ_in_length_and_names_both) {
  const TemporaryFolder folder;
  write_bytes(folder / "images", "\0\0\x08\x02\0\0\0\x02\0\0\0\x01"s + "\x00\xFF"s);
  write_bytes(folder / "labels", "\0\0\x08\x01\0\0\0\x01\x09"s);
  const std::string message =
      message_of<DataError>([&] { read_idx_dataset(folder / "images", folder / "labels"); });
  for (const char* part : {"(2, 1) in ", "/images", "(1) in ", "/labels"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

}  // namespace dataset_test
}  // namespace lockstep::testing
