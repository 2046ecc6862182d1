// Files whose checksums are right, and whose contents are not: made by hand, or to attack a reader.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/file_of.hpp"
#include "checkpoint/format.hpp"
#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace forged_test {

using testing::throws;

constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

StateRecord record(std::string key, StateRecord::Kind kind, std::uint64_t number = 0) {
  return {.key = std::move(key), .kind = kind, .number = number, .string = {}};
}

std::uint64_t checksum(const std::string& bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

class Forged : public ::testing::Test {
 protected:
  template <class... Parts>
  ::testing::AssertionResult is_refused(const std::string& file, const Parts&... parts) const {
    testing::write_bytes(path_, file);
    const std::size_t before = testing::allocated_bytes();
    const auto result =
        throws<CheckpointError>([&] { read_file(path_); }, path_.string(), parts...);
    const std::size_t taken = testing::allocated_bytes() - before;
    if (taken > 100'000 + 100 * file.size()) {
      return ::testing::AssertionFailure()
             << "took " << taken << " bytes for a file of " << file.size();
    }
    return result;
  }

  // A file with tensors t0, t1, … as described, and these bytes as their contents.
  static std::string with_tensors(std::vector<TensorRecord> tensors, const std::string& data = {}) {
    Header header{.records = {record("", StateRecord::dict, tensors.size())}, .tensors = {}};
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      header.records.push_back(record("t" + std::to_string(i), StateRecord::tensor, i));
    }
    header.tensors = std::move(tensors);
    return file_of(encode(header), data);
  }

  // A file of one tensor of a shape that is none.
  static std::string with_shape(const std::vector<std::int64_t>& extents) {
    const Header header{
        .records = {record("", StateRecord::dict, 1), record("t", StateRecord::tensor, 0)},
        .tensors = {{.shape = {12345}}}};
    std::string text = encode(header);
    const std::string shape = " 1 12345 ";
    text.replace(text.find(shape), shape.size(),
                 fmt::format(" {} {} ", extents.size(), fmt::join(extents, " ")));
    return file_of(text);
  }

  static std::string with_records(const std::vector<StateRecord>& records,
                                  std::size_t tensors = 0) {
    Header header{.records = records, .tensors = {}};
    for (std::size_t i = 0; i < tensors; ++i) {
      header.tensors.push_back({.shape = {0}, .checksum = checksum("")});
    }
    if (tensors == 0) return file_of(encode(header));
    return file_of(encode(header), "");
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
};

TEST_F(Forged, is_read_where_nothing_is_wrong) {
  const std::string data = "abcdefgh";
  const TensorRecord tensor{
      .dtype = 3, .shape = {2, 4}, .offset = 0, .bytes = 8, .checksum = checksum(data)};
  testing::write_bytes(path_, with_tensors({tensor}, data));
  EXPECT_EQ(read_file(path_).at("t0").as_tensor().span<std::uint8_t>()[7], 'h');
}

TEST_F(Forged, shape_that_the_file_has_no_room_for) {
  for (const std::int64_t extent :
       {std::int64_t{17}, std::int64_t{1} << 40, std::int64_t{1} << 59}) {
    const std::uint64_t bytes = static_cast<std::uint64_t>(extent) * 8;
    EXPECT_TRUE(is_refused(
        with_tensors({{.dtype = 1, .shape = {extent}, .bytes = bytes}}, std::string(128, 'x')),
        "its header describes"));
  }
}

TEST_F(Forged, shape_whose_size_in_bytes_overflows) {
  for (const int exponent : {60, 61, 62}) {
    const std::int64_t extent = std::int64_t{1} << exponent;
    EXPECT_TRUE(is_refused(
        with_tensors(
            {{.dtype = 1, .shape = {extent}, .bytes = static_cast<std::uint64_t>(extent) * 8}}),
        "too large"));
  }
  EXPECT_TRUE(is_refused(with_shape({1 << 30, 1 << 30, 1 << 30}), "too many"));
  EXPECT_TRUE(is_refused(with_shape({INT64_MAX}), "too many"));
}

TEST_F(Forged, tensors_whose_sum_overflows) {
  constexpr std::uint64_t half = max_data_bytes / 2;
  std::vector<TensorRecord> tensors;
  for (std::uint64_t i = 0; i < 8; ++i) {
    tensors.push_back(
        {.dtype = 3, .shape = {std::int64_t{half}}, .offset = i * half, .bytes = half});
  }
  EXPECT_TRUE(is_refused(with_tensors(tensors), "too large"));
}

TEST_F(Forged, shape_that_is_none) {
  EXPECT_TRUE(is_refused(with_shape({-1}), "negative"));
  EXPECT_TRUE(is_refused(with_shape({INT64_MIN, 0}), "negative"));
  EXPECT_TRUE(is_refused(with_shape(std::vector<std::int64_t>(9, 1)), "at most 8"));
  EXPECT_TRUE(is_refused(with_shape(std::vector<std::int64_t>(10000, 1)), "at most 8"));
}

TEST_F(Forged, size_that_contradicts_the_shape) {
  for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{11}, std::uint64_t{16}, max}) {
    EXPECT_TRUE(is_refused(with_tensors({{.shape = {3}, .bytes = bytes}}, std::string(12, 'x')),
                           "expected 12 bytes at 0"));
  }
}

TEST_F(Forged, offsets_that_overlap_leave_gaps_or_are_not_aligned) {
  const TensorRecord first{.dtype = 3, .shape = {64}, .offset = 0, .bytes = 64};
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{32}, std::uint64_t{63},
                                     std::uint64_t{65}, std::uint64_t{128}, max, max - 63}) {
    EXPECT_TRUE(
        is_refused(with_tensors({first, {.dtype = 3, .shape = {64}, .offset = offset, .bytes = 64}},
                                std::string(192, 'x')),
                   "tensor 1", "expected 64 bytes at 64"));
  }
}

TEST_F(Forged, dtype_that_is_none) {
  for (const std::uint8_t dtype : {std::uint8_t{4}, std::uint8_t{100}, std::uint8_t{255}}) {
    EXPECT_TRUE(is_refused(with_tensors({{.dtype = dtype, .shape = {0}}}), "dtype"));
  }
}

TEST_F(Forged, padding_that_is_not_zero) {
  const TensorRecord tensor{.dtype = 3, .shape = {1}, .bytes = 1, .checksum = checksum("x")};
  TensorRecord second = tensor;
  second.offset = 64;
  const std::string data = 'x' + std::string(63, '\0') + 'x';
  const std::string good = with_tensors({tensor, second}, data);
  testing::write_bytes(path_, good);
  EXPECT_EQ(read_file(path_).size(), 2u);
  std::string before = good, between = good;
  before[good.find(data) - 1] = 1;
  between[good.find(data) + 63] = 1;
  EXPECT_TRUE(is_refused(before, "padding"));
  EXPECT_TRUE(is_refused(between, "padding"));
}

TEST_F(Forged, nesting_without_end) {
  for (const std::size_t depth : {65u, 10000u, 200000u}) {
    for (const StateRecord::Kind kind : {StateRecord::list, StateRecord::dict}) {
      std::vector<StateRecord> records{record("", StateRecord::dict, 1)};
      for (std::size_t i = 0; i < depth; ++i) records.push_back(record("k", kind, 1));
      records.back().number = 0;
      EXPECT_TRUE(is_refused(with_records(records), "too deep")) << depth;
    }
  }
}

TEST_F(Forged, records_that_are_no_tree) {
  using R = StateRecord;
  const R root = record("", R::dict, 1);
  EXPECT_TRUE(is_refused(with_records({}), "expected a dict first"));
  EXPECT_TRUE(is_refused(with_records({record("", R::list)}), "expected a dict first"));
  EXPECT_TRUE(is_refused(with_records({root}), "a record is missing"));
  EXPECT_TRUE(is_refused(with_records({root, record("a", R::list, 1)}), "a record is missing"));
  for (const std::uint64_t size : {std::uint64_t{1} << 40, std::uint64_t{1} << 63, max}) {
    EXPECT_TRUE(is_refused(with_records({record("", R::dict, size)}), "a record is missing"));
    EXPECT_TRUE(is_refused(with_records({root, record("a", R::list, size)}), "missing"));
    EXPECT_TRUE(is_refused(with_records({root, record("a", R::dict, size)}), "missing"));
  }
  EXPECT_TRUE(is_refused(with_records({root, record("a", R::integer), record("b", R::integer)}),
                         "records are left over"));
  EXPECT_TRUE(is_refused(with_records({record("", R::dict, 2), record("a", R::integer, 1),
                                       record("a", R::integer, 2)}),
                         "a key comes twice"));
  EXPECT_TRUE(is_refused(with_records({root, record("a", static_cast<R::Kind>(7))}), "kind"));
  EXPECT_TRUE(is_refused(with_records({root, record("a", static_cast<R::Kind>(255))}), "kind"));
}

TEST_F(Forged, tensors_that_are_not_named_once_in_order) {
  using R = StateRecord;
  const auto two = [](std::uint64_t first, std::uint64_t second, std::size_t tensors) {
    return with_records(
        {record("", R::dict, 2), record("a", R::tensor, first), record("b", R::tensor, second)},
        tensors);
  };
  testing::write_bytes(path_, two(0, 1, 2));
  EXPECT_EQ(read_file(path_).size(), 2u);
  EXPECT_TRUE(is_refused(two(1, 0, 2), "number is wrong"));
  EXPECT_TRUE(is_refused(two(0, 0, 2), "number is wrong"));
  EXPECT_TRUE(is_refused(two(0, 0, 1), "number is wrong"));
  EXPECT_TRUE(is_refused(two(0, 1, 1), "number is wrong"));
  EXPECT_TRUE(is_refused(two(0, max, 2), "number is wrong"));
  EXPECT_TRUE(is_refused(two(0, 1, 3), "tensors are left over"));
}

TEST_F(Forged, header_that_is_no_header) {
  const std::string good = encode({.records = {record("", StateRecord::dict)}, .tensors = {}});
  ASSERT_EQ(good, "1 0  5 0 0  0\n");
  testing::write_bytes(path_, file_of(good));
  EXPECT_TRUE(read_file(path_).empty());
  for (std::size_t size = 0; size + 1 < good.size(); ++size) {
    EXPECT_TRUE(is_refused(file_of(good.substr(0, size)), "header")) << size;
  }
  for (const char* text :
       {"x", "-", "1 0  5 0 0  0 0", "1 0  5 0 0  0\nmore", "1 0  5 0 0  18446744073709551615",
        "1 0  5 0 0  1000000000000", "1 0  5 0 0  -1", "18446744073709551615 0  5 0 0  0",
        "99999999999999999999999 0  5 0 0  0", "4000000000 0  5 0 0  0", "1 18446744073709551615 ",
        "1 9223372036854775807 ", "1 100000000000  5 0 0  0", "1 500000000  5 0 0  0",
        "1 -1  5 0 0  0", "1 0  5 0 500000000  0", "2 0  5 1 0  1 k 3 0 99 short 0",
        "22 serialization::archive 17 1 0  5 0 0  0"}) {
    EXPECT_TRUE(is_refused(file_of(text), "header")) << text;
  }
  EXPECT_TRUE(is_refused(file_of(std::string(5000, '\0')), "header"));
  EXPECT_TRUE(is_refused(file_of(std::string(5000, '1')), "header"));
}

}  // namespace forged_test
}  // namespace lockstep::checkpoint
