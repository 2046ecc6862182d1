// Files that were damaged after they had been written: every damage is found.
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "checkpoint/allocation_counter.hpp"
#include "checkpoint/format.hpp"
#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {

using testing::throws;

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
    const std::size_t before = testing::allocated_bytes();
    const auto result =
        throws<CheckpointError>([&] { read_file(path_); }, path_.string(), parts...);
    const std::size_t taken = testing::allocated_bytes() - before;
    if (taken > 100'000) return ::testing::AssertionFailure() << "took " << taken << " bytes";
    return result;
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
  for (std::size_t size = bytes_.size(); size-- > 0;) {
    std::filesystem::resize_file(path_, size);
    ASSERT_TRUE(what_is_there_is_refused()) << "cut to " << size;
  }
}

TEST_F(Damage, of_any_bit_is_found) {
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&file](std::size_t at, char byte) {
    file.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      put(i, static_cast<char>(bytes_[i] ^ (1 << bit)));
      ASSERT_TRUE(what_is_there_is_refused()) << "bit " << bit << " of byte " << i;
    }
    put(i, bytes_[i]);
  }
  EXPECT_EQ(read_file(path_).size(), 6u);
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

}  // namespace lockstep::checkpoint
