#include "lockstep/data/idx.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::testing {
namespace idx_test {

using namespace std::string_literals;
using data::read_idx;

std::string gzip(const TemporaryFolder& folder, const std::string& bytes) {
  const auto path = folder / "packed.gz";
  const gzFile file = gzopen(path.c_str(), "wb9");
  EXPECT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())), bytes.size());
  EXPECT_EQ(gzclose(file), Z_OK);
  return read_bytes(path);
}

class Idx : public ::testing::Test {
 protected:
  Tensor read(const std::string& bytes) {
    write_bytes(path_, bytes);
    return read_idx(path_);
  }
  std::string error_of(const std::string& bytes) {
    const std::string message = message_of<DataError>([&] { read(bytes); });
    EXPECT_EQ(message.find(path_.string()), 0U) << message;
    return message;
  }
  void expect_error(const std::string& bytes, const std::string& part) {
    const std::string message = error_of(bytes);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "array.idx";
};

// (2, 3) of u8, as the format's description has it.
const std::string small = "\0\0\x08\x02\0\0\0\x02\0\0\0\x03"s + "\x01\x02\x03\xFE\xFF\0"s;

template <class T>
std::vector<T> values(const Tensor& tensor) {
  const auto span = tensor.span<T>();
  return {span.begin(), span.end()};
}

TEST_F(Idx, reads_unsigned_bytes) {
  const Tensor tensor = read(small);
  EXPECT_EQ(tensor.shape(), (Shape{2, 3}));
  EXPECT_EQ(values<std::uint8_t>(tensor), (std::vector<std::uint8_t>{1, 2, 3, 254, 255, 0}));
}

TEST_F(Idx, reads_gzip_as_it_reads_plain) {
  EXPECT_TRUE(bit_equal(read(gzip(folder_, small)), read(small)));
}

TEST_F(Idx, reads_gzip_of_several_members_as_one) {
  const Tensor tensor = read(gzip(folder_, small.substr(0, 5)) + gzip(folder_, small.substr(5)));
  EXPECT_TRUE(bit_equal(tensor, read(small)));
}

TEST_F(Idx, reads_short_and_int_with_their_sign_into_i64) {
  const Tensor shorts = read("\0\0\x0B\x01\0\0\0\x03"s + "\x7F\xFF\x80\x00\xFF\xFE"s);
  EXPECT_EQ(values<std::int64_t>(shorts), (std::vector<std::int64_t>{32767, -32768, -2}));
  const Tensor ints = read("\0\0\x0C\x01\0\0\0\x02"s + "\x01\x02\x03\x04\x80\0\0\x01"s);
  EXPECT_EQ(values<std::int64_t>(ints), (std::vector<std::int64_t>{16909060, -2147483647}));
}

TEST_F(Idx, reads_big_endian_float_and_double) {
  const Tensor floats = read("\0\0\x0D\x01\0\0\0\x02"s + "\x3F\xC0\0\0\xC2\x28\0\0"s);
  EXPECT_EQ(values<float>(floats), (std::vector<float>{1.5F, -42.0F}));
  const Tensor doubles = read("\0\0\x0E\x01\0\0\0\x01"s + "\x40\x09\x21\xFB\x54\x44\x2D\x18"s);
  EXPECT_EQ(values<double>(doubles), std::vector<double>{3.141592653589793});
}

TEST_F(Idx, reads_arrays_longer_than_a_chunk) {
  // 300 · 257 = 77100 ints, whose bytes do not end with a chunk.
  std::string bytes = "\0\0\x0C\x02\0\0\x01\x2C\0\0\x01\x01"s;
  for (int i = 0; i < 300 * 257; ++i) {
    for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(i * 7 >> shift & 0xFF);
  }
  for (const std::string& file : {bytes, gzip(folder_, bytes)}) {
    const auto found = values<std::int64_t>(read(file));
    ASSERT_EQ(found.size(), 300U * 257U);
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i], static_cast<std::int64_t>(7 * i));
    }
  }
}

TEST_F(Idx, reads_scalars_and_empty_arrays) {
  EXPECT_EQ(read("\0\0\x08\0\x2A"s).shape(), Shape{});
  const Tensor empty = read("\0\0\x0D\x02\0\0\0\0\0\0\0\x1C"s);
  EXPECT_EQ(empty.shape(), (Shape{0, 28}));
  EXPECT_EQ(empty.dtype(), DType::f32);
}

TEST_F(Idx, says_what_is_wrong_with_a_file) {
  expect_error("", "empty");
  expect_error("\0\0"s, "not an IDX file");
  expect_error("\x89PNG\r\n",
               "not an IDX file: expected it to begin with 00 00, a type and a "
               "number of axes, found 89 50 4E 47");
  expect_error("\0\0\x09\x01\0\0\0\x01\x01"s, "at offset 2, found 0x09");
  expect_error("\0\0\x08\x09"s + std::string(36, '\0'), "at most 8 axes at offset 3, found 9");
  expect_error(small.substr(0, 11), "truncated header: expected 12 bytes for 2 axes, found 11");
  expect_error(
      small.substr(0, 15),
      "truncated: shape (2, 3) needs 6 elements of 1 bytes after offset 12, found 3 bytes");
  expect_error(small + "x",
               "trailing bytes: shape (2, 3) needs 6 elements of 1 bytes after "
               "offset 12, found 7 bytes");
  expect_error("\0\0\x0E\x01\0\0\0\x02"s + std::string(15, 'x'), "truncated");
  expect_error(gzip(folder_, small) + "\x1f\x8b", "damaged gzip");
}

TEST_F(Idx, says_what_is_wrong_with_a_path) {
  const auto missing = message_of<DataError>([&] { read_idx(folder_ / "missing"); });
  EXPECT_NE(missing.find("missing: no such file"), std::string::npos) << missing;
  const auto folder = message_of<DataError>([&] { read_idx(folder_ / "."); });
  EXPECT_NE(folder.find("found a directory"), std::string::npos) << folder;
  EXPECT_THROW(read_idx("/dev/null"), DataError);
}

TEST_F(Idx, takes_no_memory_on_the_word_of_a_header) {
  const std::string most = "\xFF\xFF\xFF\xFF";
  const std::string header = "\0\0\x08\x01"s + most;
  const std::string three_axes = "\0\0\x0E\x03"s + most + most + most;
  // 2^61 doubles, whose number of bytes is 0 modulo 2^64.
  const std::string wraps = "\0\0\x0E\x02\x80\0\0\0\x40\0\0\0"s;
  for (const std::string& bytes :
       {header, three_axes, wraps, "\0\0\x0E\x01\x40\0\0\0"s + std::string(1000, 'x')}) {
    for (const std::string& file : {bytes, gzip(folder_, bytes)}) {
      const std::size_t before = allocated_bytes();
      error_of(file);
      EXPECT_LT(allocated_bytes() - before, 1U << 20);
    }
  }
}

TEST_F(Idx, refuses_every_truncation) {
  const std::string packed = gzip(folder_, small);
  for (const std::string& whole : {small, packed}) {
    for (std::size_t length = 0; length < whole.size(); ++length) error_of(whole.substr(0, length));
  }
}

constexpr int masks[] = {1, 2, 4, 8, 16, 32, 64, 128, 255};

// A flip in the header of gzip (its time stamp, say) changes nothing; any other is seen.
TEST_F(Idx, refuses_every_flip_that_changes_the_data_of_a_gzip_file) {
  const std::string packed = gzip(folder_, small);
  const Tensor expected = read(small);
  int refused = 0;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    for (const int mask : masks) {
      std::string damaged = packed;
      damaged[i] = static_cast<char>(damaged[i] ^ mask);
      try {
        EXPECT_TRUE(bit_equal(read(damaged), expected)) << "byte " << i << " mask " << mask;
      } catch (const DataError&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 9 * 20);
}

TEST_F(Idx, refuses_every_flip_in_the_header_of_a_plain_file) {
  constexpr std::size_t header = 12;
  for (std::size_t i = 0; i < small.size(); ++i) {
    for (const int mask : masks) {
      std::string damaged = small;
      damaged[i] = static_cast<char>(damaged[i] ^ mask);
      if (i < header) {
        error_of(damaged);
      } else {
        auto expected = values<std::uint8_t>(read(small));
        expected[i - header] = static_cast<std::uint8_t>(expected[i - header] ^ mask);
        EXPECT_EQ(values<std::uint8_t>(read(damaged)), expected);
      }
    }
  }
}

// Where Debian's package dataset-fashion-mnist puts it, or LOCKSTEP_FASHION_MNIST.
std::filesystem::path fashion_mnist() {
  const char* folder = std::getenv("LOCKSTEP_FASHION_MNIST");
  return folder != nullptr ? folder : "/usr/share/datasets/fashion-mnist";
}

TEST_F(Idx, reads_fashion_mnist) {
  const auto folder = fashion_mnist();
  if (!std::filesystem::exists(folder / "train-images-idx3-ubyte.gz")) {
    GTEST_SKIP() << "no Fashion-MNIST in " << folder;
  }
  const Tensor images = read_idx(folder / "train-images-idx3-ubyte.gz");
  ASSERT_EQ(images.shape(), (Shape{60000, 28, 28}));
  double sum = 0;
  for (const std::uint8_t pixel : images.span<std::uint8_t>()) sum += pixel;
  // The mean that is in use everywhere for it.
  EXPECT_NEAR(sum / 255 / static_cast<double>(images.size()), 0.2860, 5e-5);

  const Tensor labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz");
  ASSERT_EQ(labels.shape(), Shape{10000});
  const auto all = values<std::uint8_t>(labels);
  EXPECT_EQ(std::vector(all.begin(), all.begin() + 10),
            (std::vector<std::uint8_t>{9, 2, 1, 1, 6, 1, 4, 6, 5, 7}));
  for (int label = 0; label < 10; ++label) {
    EXPECT_EQ(std::count(all.begin(), all.end(), label), 1000);
  }
}

}  // namespace idx_test
}  // namespace lockstep::testing
