// Files that were damaged after they had been written: every damage is found.
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <string>

#include "checkpoint/format.hpp"
#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace damage_test {

using testing::throws;

// What a reader says of a file in which a bit of this byte has changed.
std::string message_of(const std::string& bytes, std::size_t byte) {
  Preface preface;
  std::memcpy(&preface, bytes.data(), sizeof preface);
  const std::size_t header_end = sizeof preface + preface.header_bytes;
  if (byte < 8) return "it does not begin as a checkpoint does";
  if (byte < 12) return "its format is version ";
  if (byte < 16) return "bytes 12 to 15, which are reserved, are not zero";
  if (byte < 24) return "its header";  // claims too much, or has the wrong checksum
  if (byte < header_end) return "the checksum of its header is wrong";
  if (byte >= bytes.size() - 8) return "it is cut off, or something follows its end";
  if (byte >= bytes.size() - 16) return " that were written";
  const Header header = decode(bytes.substr(sizeof preface, preface.header_bytes));
  for (const StateRecord& record : header.records) {
    if (record.kind != StateRecord::tensor) continue;
    const TensorRecord& tensor = header.tensors[record.number];
    const std::size_t begin = align(header_end) + tensor.offset;
    if (byte >= begin && byte < begin + tensor.bytes) {
      return "the checksum of '" + record.key + "' is wrong";
    }
  }
  return "the padding from byte ";
}

class Damage : public ::testing::Test {
 protected:
  Damage() {
    const std::vector<float> a{1, 2, 3}, b{4, 5, 6};
    write_file(path_, {{"a", Tensor::from(a, {3})},
                       {"b", Tensor::from(b, {3})},
                       {"empty", Tensor::zeros({0})},
                       {"mask", Tensor::full({5}, 1, DType::u8)},
                       {"number", 42},
                       {"text", "words"}});
    bytes_ = testing::read_bytes(path_);
  }

  template <class... Parts>
  ::testing::AssertionResult is_refused(const std::string& bytes, const Parts&... parts) const {
    testing::write_bytes(path_, bytes);
    return what_is_there_is_refused(parts...);
  }
  template <class... Parts>
  ::testing::AssertionResult what_is_there_is_refused(const Parts&... parts) const {
    auto result = is_refused_by([&] { read_file(path_); }, parts...);
    return result ? is_refused_by([&] { verify_file(path_); }, parts...) : result;
  }
  template <class Read, class... Parts>
  ::testing::AssertionResult is_refused_by(const Read& read, const Parts&... parts) const {
    const std::size_t before = testing::allocated_bytes();
    auto result = throws<CheckpointError>(read, path_.string(), parts...);
    const std::size_t taken = testing::allocated_bytes() - before;
    if (taken <= 100'000 + bytes_.size()) return result;
    return ::testing::AssertionFailure() << "took " << taken << " bytes";
  }

  // Writes one byte of the file that is there.
  void put(std::size_t at, char byte) const {
    std::fstream(path_, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(static_cast<std::streamoff>(at))
        .put(byte);
  }

  std::string with_header_bytes(std::uint64_t size) const {
    std::string bytes = bytes_;
    std::memcpy(bytes.data() + offsetof(Preface, header_bytes), &size, sizeof size);
    return bytes;
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
  std::string bytes_;
};

TEST_F(Damage, of_nothing_is_none) {
  testing::write_bytes(path_, bytes_);
  EXPECT_EQ(read_file(path_).size(), 6u);
}

TEST_F(Damage, by_truncation_is_found_at_every_length) {
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes_.data() + offsetof(Preface, header_bytes), sizeof header_bytes);
  for (std::size_t size = bytes_.size(); size-- > 0;) {
    std::filesystem::resize_file(path_, size);
    const std::string why = size < 48                  ? "only " + std::to_string(size) + " bytes"
                            : size < 48 + header_bytes ? "its header claims"
                                                       : "it is cut off";
    ASSERT_TRUE(what_is_there_is_refused(why)) << "cut to " << size;
  }
}

TEST_F(Damage, of_any_bit_is_found) {
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    const std::string why = message_of(bytes_, i);
    for (int bit = 0; bit < 8; ++bit) {
      put(i, static_cast<char>(bytes_[i] ^ (1 << bit)));
      ASSERT_TRUE(what_is_there_is_refused(why)) << "bit " << bit << " of byte " << i;
    }
    put(i, bytes_[i]);
  }
  EXPECT_EQ(read_file(path_).size(), 6u);
}

TEST_F(Damage, of_any_bit_of_a_larger_file_is_found) {
  StateDict state;
  std::mt19937 random(3);
  for (int i = 0; i < 40; ++i) {
    Tensor tensor = Tensor::empty({static_cast<std::int64_t>(random() % 500)});
    for (float& number : tensor.span<float>()) number = static_cast<float>(random() % 1000);
    state["tensor " + std::to_string(i)] = tensor;
  }
  write_file(path_, state);
  bytes_ = testing::read_bytes(path_);
  ASSERT_GT(bytes_.size(), 30'000u);
  for (int i = 0; i < 10'000; ++i) {
    const std::size_t byte = random() % bytes_.size();
    const unsigned bit = random() % 8;
    put(byte, static_cast<char>(bytes_[byte] ^ (1 << bit)));
    ASSERT_TRUE(what_is_there_is_refused(message_of(bytes_, byte)))
        << "bit " << bit << " of byte " << byte;
    put(byte, bytes_[byte]);
  }
  EXPECT_TRUE(bit_equal(read_file(path_), state));
}

// The front of one file and the rear of another, with or without a gap or a piece that comes twice.
TEST_F(Damage, by_splicing_two_files_is_found) {
  const std::vector<float> a{1, 2, 3}, b{7, 8, 9}, c(50, 4);
  const std::vector<StateDict> others{
      // The same header, but for a checksum.
      {{"a", Tensor::from(a, {3})},
       {"b", Tensor::from(b, {3})},
       {"empty", Tensor::zeros({0})},
       {"mask", Tensor::full({5}, 1, DType::u8)},
       {"number", 42},
       {"text", "words"}},
      {{"a", Tensor::from(c, {50})}, {"b", Tensor::from(a, {3})}, {"text", "words"}},
      {{"number", 42}}};
  for (const StateDict& other : others) {
    write_file(path_, other);
    const std::string second = testing::read_bytes(path_);
    for (const auto& [front, rear] : {std::pair(bytes_, second), std::pair(second, bytes_)}) {
      for (std::size_t end = 0; end <= front.size(); end += 64) {
        for (std::size_t begin = 0; begin <= rear.size(); begin += 64) {
          const std::string spliced = front.substr(0, end) + rear.substr(begin);
          if (spliced == front || spliced == rear) continue;
          ASSERT_TRUE(is_refused(spliced)) << end << " bytes, and those from " << begin;
        }
      }
    }
  }
}

TEST_F(Damage, by_splicing_two_files_of_one_layout_names_a_tensor) {
  write_file(path_, {{"a", Tensor::full({3}, 5)},
                     {"b", Tensor::full({3}, 6)},
                     {"empty", Tensor::zeros({0})},
                     {"mask", Tensor::full({5}, 2, DType::u8)},
                     {"number", 43},
                     {"text", "others"}});
  const std::string second = testing::read_bytes(path_);
  const std::size_t a = bytes_.find(std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  ASSERT_EQ(bytes_.size(), a + 128 + 5 + 16);
  ASSERT_EQ(second.size(), bytes_.size());
  EXPECT_TRUE(is_refused(bytes_.substr(0, a) + second.substr(a), "the checksum of 'a' is wrong"));
  EXPECT_TRUE(
      is_refused(bytes_.substr(0, a + 64) + second.substr(a + 64), "the checksum of 'b' is wrong"));
  EXPECT_TRUE(is_refused(bytes_.substr(0, a + 128) + second.substr(a + 128),
                         "the checksum of 'mask' is wrong"));
}

TEST_F(Damage, by_zeroed_blocks_is_found) {
  for (std::size_t begin = 0; begin < bytes_.size(); begin += 32) {
    std::string zeroed = bytes_;
    std::fill_n(zeroed.begin() + static_cast<std::ptrdiff_t>(begin),
                std::min<std::size_t>(32, bytes_.size() - begin), '\0');
    if (zeroed == bytes_) continue;
    EXPECT_TRUE(is_refused(zeroed)) << begin;
  }
}

TEST_F(Damage, by_appended_bytes_is_found) {
  for (const std::size_t size : {1u, 8u, 16u, 64u, 10000u}) {
    EXPECT_TRUE(is_refused(bytes_ + std::string(size, '\0'), "something follows its end"));
  }
  EXPECT_TRUE(is_refused(bytes_ + bytes_, "bytes"));
}

TEST_F(Damage, by_appended_bytes_with_a_matching_trailer_is_found) {
  std::string longer = bytes_ + std::string(64, '\0');
  Trailer trailer{.file_bytes = longer.size(), .magic = {}};
  std::memcpy(trailer.magic, end_magic, sizeof end_magic);
  std::memcpy(longer.data() + longer.size() - sizeof trailer, &trailer, sizeof trailer);
  EXPECT_TRUE(is_refused(longer, "its header describes"));
}

TEST_F(Damage, by_swapped_tensors_of_equal_shape_is_found) {
  const std::vector<float> a{1, 2, 3}, b{4, 5, 6};
  const std::string a_bytes(reinterpret_cast<const char*>(a.data()), 12);
  const std::string b_bytes(reinterpret_cast<const char*>(b.data()), 12);
  const std::size_t a_at = bytes_.find(a_bytes), b_at = bytes_.find(b_bytes);
  ASSERT_EQ(b_at, a_at + 64);
  std::string swapped = bytes_;
  swapped.replace(a_at, 12, b_bytes).replace(b_at, 12, a_bytes);
  EXPECT_TRUE(is_refused(swapped, "the checksum of 'a' is wrong"));
}

TEST_F(Damage, of_the_length_of_the_header_is_found) {
  using limits = std::numeric_limits<std::uint64_t>;
  const std::uint64_t size = bytes_.size();
  for (const std::uint64_t claim :
       {std::uint64_t{0}, std::uint64_t{1}, size - 49, size - 48, size - 47, size, size + 1,
        max_header_bytes, max_header_bytes + 1, limits::max() / 2, limits::max() / 2 + 1,
        limits::max() - 31, limits::max()}) {
    EXPECT_TRUE(is_refused(with_header_bytes(claim))) << claim;
  }
}

TEST_F(Damage, is_told_from_another_kind_of_file_and_from_another_version) {
  EXPECT_TRUE(is_refused("", "only 0 bytes"));
  EXPECT_TRUE(is_refused(std::string(500, 'x'), "does not begin as a checkpoint does"));
  for (const char version : {'\0', '\2', '\x7f'}) {
    std::string other = bytes_;
    other[8] = version;
    EXPECT_TRUE(is_refused(other, "version " + std::to_string(int{version}), "reads version 1"));
  }
}

}  // namespace damage_test
}  // namespace lockstep::checkpoint
