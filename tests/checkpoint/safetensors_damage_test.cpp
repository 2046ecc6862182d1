// safetensors files that are not as the format has them, by accident or to attack a reader.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/safetensors.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace safetensors_damage_test {

using testing::throws;

std::string file_of(const std::string& header, const std::string& data = {}) {
  const std::uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

// A header with these fields of a tensor "t".
std::string tensor(const std::string& fields) { return "{\"t\":{" + fields + "}}"; }

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return tensor("\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets);
}

// A header with u8 tensors a, b, c, … at these places.
std::string tiles(const std::vector<std::pair<int, int>>& places) {
  std::string header;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto [begin, end] = places[i];
    header += std::string(i == 0 ? "{" : ",") + "\"" + static_cast<char>('a' + i) +
              R"(":{"dtype":"U8","shape":[)" + std::to_string(end - begin) +
              R"(],"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(end) + "]}";
  }
  return header + "}";
}

class SafetensorsDamage : public ::testing::Test {
 protected:
  template <class... Parts>
  ::testing::AssertionResult is_refused(const std::string& file, const Parts&... parts) const {
    testing::write_bytes(path_, file);
    const std::size_t before = testing::allocated_bytes();
    const auto result =
        throws<CheckpointError>([&] { read_safetensors(path_); },
                                "the safetensors file '" + path_.string() + "'", parts...);
    const std::size_t taken = testing::allocated_bytes() - before;
    if (taken > 100'000 + 100 * file.size()) {
      return ::testing::AssertionFailure()
             << "took " << taken << " bytes for a file of " << file.size();
    }
    return result;
  }
  SafetensorsFile read(const std::string& file) const {
    testing::write_bytes(path_, file);
    return read_safetensors(path_);
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
};

TEST_F(SafetensorsDamage, files_made_here_are_read_where_nothing_is_wrong) {
  const SafetensorsFile file = read(file_of(tiles({{4, 6}, {0, 4}, {4, 4}, {6, 6}}), "abcdef"));
  EXPECT_EQ(file.tensors.at("a").as_tensor().span<std::uint8_t>()[1], 'f');
  EXPECT_EQ(file.tensors.at("b").as_tensor().span<std::uint8_t>()[0], 'a');
  EXPECT_EQ(file.tensors.at("c").as_tensor().size(), 0);
  EXPECT_EQ(read(file_of("{\n\"__metadata__\" : { } }  ")).metadata.size(), 0u);
}

TEST_F(SafetensorsDamage, another_kind_of_file) {
  EXPECT_TRUE(is_refused("", "only 0 bytes"));
  EXPECT_TRUE(is_refused("1234567", "only 7 bytes"));
  EXPECT_TRUE(is_refused(std::string(500, 'x'), "its header claims"));
  EXPECT_TRUE(is_refused(file_of(""), "not a JSON object"));
  std::filesystem::remove(path_);
  EXPECT_TRUE(throws<CheckpointError>([&] { read_safetensors(path_); }, "no such file"));
  EXPECT_TRUE(throws<CheckpointError>([&] { read_safetensors(path_.parent_path()); },
                                      "not a regular file"));
}

TEST_F(SafetensorsDamage, length_of_the_header) {
  const std::string good = file_of(tiles({{0, 4}}), "abcd");
  for (std::uint64_t size = 0; size <= good.size(); ++size) {
    if (size + 12 == good.size()) continue;
    std::string bytes = good;
    std::memcpy(bytes.data(), &size, sizeof size);
    EXPECT_TRUE(is_refused(bytes, "header")) << size;
  }
  for (const std::uint64_t size : {std::uint64_t{100'000'001}, std::uint64_t{1} << 62, UINT64_MAX,
                                   UINT64_MAX - 7, UINT64_MAX - 8}) {
    std::string bytes = good;
    std::memcpy(bytes.data(), &size, sizeof size);
    EXPECT_TRUE(is_refused(bytes, "its header claims " + std::to_string(size))) << size;
  }
}

TEST_F(SafetensorsDamage, header_beyond_the_limit_of_the_format) {
  testing::write_bytes(path_, file_of("{}"));
  const std::uint64_t size = 100'000'001;
  std::fstream(path_, std::ios::in | std::ios::out | std::ios::binary)
      .write(reinterpret_cast<const char*>(&size), sizeof size);
  std::filesystem::resize_file(path_, 8 + size);
  EXPECT_TRUE(throws<CheckpointError>([&] { read_safetensors(path_); }, "may have 100000000"));
}

TEST_F(SafetensorsDamage, header_that_is_no_json_object) {
  EXPECT_TRUE(is_refused(file_of("[]"), "not a JSON object"));
  EXPECT_TRUE(is_refused(file_of(" {}"), "not a JSON object"));
  EXPECT_TRUE(is_refused(file_of("{}\n"), "not a JSON object"));
  EXPECT_TRUE(is_refused(file_of(std::string("{}\0", 3)), "not a JSON object"));
  EXPECT_TRUE(is_refused(file_of("\xef\xbb\xbf{}"), "not a JSON object"));
  EXPECT_TRUE(is_refused(file_of("{} {}"), "not valid JSON at byte 11"));
  EXPECT_TRUE(is_refused(file_of("{}}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"a\"}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{'a':1}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"__metadata__\":{},}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{/**/}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"\xff\":1}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"\xc0\x80\":1}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"\\ud800\":1}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"a\":NaN}"), "not valid JSON"));
  EXPECT_TRUE(is_refused(file_of("{\"a\":1e999}"), "out of range"));
}

TEST_F(SafetensorsDamage, nesting_without_end) {
  for (const std::size_t depth : {4u, 1000u, 1'000'000u}) {
    EXPECT_TRUE(is_refused(
        file_of("{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}"), "nests"));
    EXPECT_TRUE(is_refused(file_of("{\"a\":" + std::string(depth, '[') + "}"), "nests"));
  }
}

TEST_F(SafetensorsDamage, names_that_come_twice) {
  const std::string field = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_TRUE(is_refused(file_of("{\"a\":" + field + ",\"a\":" + field + "}"), "'a' comes twice"));
  EXPECT_TRUE(
      is_refused(file_of("{\"a\":" + field + ",\"\\u0061\":" + field + "}"), "'a' comes twice"));
  EXPECT_TRUE(is_refused(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "comes twice"));
  EXPECT_TRUE(is_refused(file_of(R"({"__metadata__":{"k":"1","k":"1"}})"), "'k' comes twice"));
  EXPECT_TRUE(
      is_refused(file_of(tensor(R"("dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0])")),
                 "'shape' comes twice"));
}

TEST_F(SafetensorsDamage, metadata_that_are_no_texts) {
  EXPECT_TRUE(is_refused(file_of(R"({"__metadata__":[]})"), "__metadata__", "found array"));
  EXPECT_TRUE(is_refused(file_of(R"({"__metadata__":null})"), "__metadata__", "found null"));
  EXPECT_TRUE(
      is_refused(file_of(R"({"__metadata__":{"k":1}})"), "__metadata__ 'k'", "found number"));
  EXPECT_TRUE(is_refused(file_of(R"({"__metadata__":{"k":{}}})"), "__metadata__ 'k'", "object"));
}

TEST_F(SafetensorsDamage, entries_that_are_no_tensors) {
  EXPECT_TRUE(is_refused(file_of("{\"t\":1}"), "tensor 't': expected an object, found number"));
  EXPECT_TRUE(is_refused(file_of("{\"t\":null}"), "tensor 't'", "found null"));
  EXPECT_TRUE(is_refused(file_of("{\"t\":{}}"), "tensor 't' has no data_offsets"));
  EXPECT_TRUE(is_refused(file_of(tensor(R"("shape":[],"data_offsets":[0,0])")), "has no dtype"));
  EXPECT_TRUE(is_refused(file_of(tensor(R"("dtype":"U8","data_offsets":[0,0])")), "has no shape"));
  EXPECT_TRUE(
      is_refused(file_of(tensor(R"("dtype":"U8","shape":[0],"data_offsets":[0,0],"stride":[1])")),
                 "tensor 't' has the unknown field 'stride'"));
}

TEST_F(SafetensorsDamage, dtypes_that_are_not_read) {
  for (const std::string dtype : {"U64", "F8_E4M3", "C64", "f32", "F32 ", ""}) {
    EXPECT_TRUE(is_refused(file_of(tensor('"' + dtype + '"', "[0]", "[0,0]")),
                           "tensor 't' has dtype '" + dtype + "', which is not read"));
  }
  EXPECT_TRUE(is_refused(file_of(tensor("1", "[0]", "[0,0]")), "a string as dtype, found number"));
}

TEST_F(SafetensorsDamage, shapes_that_are_none) {
  const auto shape = [](const std::string& text) {
    return file_of(tensor("\"F64\"", text, "[0,0]"));
  };
  EXPECT_TRUE(is_refused(shape("3"), "tensor 't': expected an array as shape, found number"));
  for (const char* extent :
       {"-1", "1.0", "0.0", "1e3", "\"1\"", "null", "true", "[]", "-0", "18446744073709551616"}) {
    EXPECT_TRUE(is_refused(shape(std::string("[0,") + extent + "]"),
                           "tensor 't': expected integers of at least 0 as shape"))
        << extent;
  }
  EXPECT_TRUE(is_refused(shape("[9223372036854775808]"), "extent 9223372036854775808"));
  EXPECT_TRUE(is_refused(shape("[0,0,0,0,0,0,0,0,0]"), "at most 8"));
  EXPECT_TRUE(is_refused(shape("[4294967296,4294967296]"), "too many elements"));
  EXPECT_TRUE(is_refused(shape("[9223372036854775807]"), "too many elements"));
  // The product of all of these is zero.
  EXPECT_TRUE(is_refused(shape("[0,4294967296,4294967296]"), "too many elements"));
  EXPECT_TRUE(is_refused(shape("[4294967296,4294967296,0]"), "too many elements"));
}

TEST_F(SafetensorsDamage, sizes_that_contradict_the_shape) {
  const std::string data(24, 'x');
  for (const char* shape :
       {"[2]", "[4]", "[0]", "[]", "[3,2]", "[2305843009213693955]", "[1000000000000]", "[3,0]"}) {
    EXPECT_TRUE(is_refused(file_of(tensor("\"F64\"", shape, "[0,24]"), data), "tensor 't' of shape",
                           "found 24 bytes"))
        << shape;
  }
  EXPECT_TRUE(is_refused(file_of(tensor("\"F64\"", "[3]", "[0,25]"), data + 'x'),
                         "expected 3 elements of 8 bytes, found 25 bytes"));
  EXPECT_TRUE(is_refused(file_of(tensor("\"F64\"", "[1]", "[0,0]")), "found 0 bytes"));
}

TEST_F(SafetensorsDamage, offsets_that_are_none) {
  for (const char* offsets : {"[]", "[0]", "[0,0,0]", "[1,0]", "[0,5]", "[5,5]",
                              "[0,18446744073709551615]", "[18446744073709551615,0]"}) {
    EXPECT_TRUE(is_refused(file_of(tensor("\"U8\"", "[4]", offsets), "abcd"),
                           "tensor 't': expected a begin and an end in 4 bytes of data", offsets));
  }
  for (const char* offsets : {"[-1,4]", "[0,4.0]", "[null,4]"}) {
    EXPECT_TRUE(is_refused(file_of(tensor("\"U8\"", "[4]", offsets), "abcd"),
                           "integers of at least 0 as data_offsets"));
  }
  EXPECT_TRUE(is_refused(file_of(tensor("\"U8\"", "[4]", "{}"), "abcd"),
                         "an array as data_offsets, found object"));
}

TEST_F(SafetensorsDamage, tensors_that_overlap_and_bytes_of_none) {
  const auto file = [](const std::vector<std::pair<int, int>>& places) {
    return file_of(tiles(places), "0123456789");
  };
  EXPECT_TRUE(
      is_refused(file({{0, 6}, {5, 10}}),
                 "tensor 'b' begins at byte 5 of the data, within tensor 'a', which ends at 6"));
  EXPECT_TRUE(is_refused(file({{0, 10}, {0, 10}}), "tensor 'b' begins at byte 0", "within"));
  EXPECT_TRUE(is_refused(file({{0, 10}, {3, 5}}), "tensor 'b' begins at byte 3", "ends at 10"));
  EXPECT_TRUE(is_refused(file({{0, 10}, {3, 3}}), "tensor 'b' begins at byte 3", "ends at 10"));
  EXPECT_TRUE(is_refused(file({{6, 10}, {0, 5}}), "bytes 5 to 6", "no tensor"));
  EXPECT_TRUE(is_refused(file({{1, 10}}), "bytes 0 to 1", "no tensor"));
  EXPECT_TRUE(is_refused(file({{0, 9}}), "bytes 9 to 10", "no tensor"));
  EXPECT_TRUE(is_refused(file({{0, 9}, {10, 10}}), "bytes 9 to 10", "no tensor"));
  EXPECT_TRUE(is_refused(file({}) + "}", "header"));
  EXPECT_TRUE(is_refused(file_of("{}", "x"), "bytes 0 to 1", "no tensor"));
}

TEST_F(SafetensorsDamage, booleans_that_are_neither_true_nor_false) {
  EXPECT_TRUE(is_refused(file_of(tensor("\"BOOL\"", "[3]", "[0,3]"), std::string("\0\1\2", 3)),
                         "tensor 't' of dtype BOOL has the element 2"));
}

class SafetensorsBits : public SafetensorsDamage {
 protected:
  SafetensorsBits() {
    write_safetensors(path_,
                      {{"a", Tensor::full({3}, 1.5)},
                       {"b.c", Tensor::full({2, 2}, 2, DType::u8)},
                       {"empty", Tensor::zeros({0})},
                       {"no", false},
                       {"number", 42}},
                      {{"format", "text"}});
    bytes_ = testing::read_bytes(path_);
    data_ = bytes_.size() - (3 * 4 + 4 + 1 + 8);
  }
  std::string bytes_;
  std::size_t data_;
};

TEST_F(SafetensorsBits, truncation_is_found_at_every_length) {
  for (std::size_t size = 0; size < bytes_.size(); ++size) {
    ASSERT_TRUE(is_refused(bytes_.substr(0, size))) << size;
  }
  EXPECT_TRUE(is_refused(bytes_ + '\0', "no tensor"));
}

// Shapes and dtypes, without names.
std::multiset<std::string> layout(const SafetensorsFile& file) {
  std::multiset<std::string> result;
  for (const auto& [name, value] : file.tensors) {
    const Tensor& tensor = value.as_tensor();
    result.insert(to_string(tensor.shape()) + std::string(to_string(tensor.dtype())));
  }
  return result;
}

TEST_F(SafetensorsBits, a_changed_bit_is_found_or_changes_only_an_element_a_name_or_a_text) {
  const SafetensorsFile before = read(bytes_);
  std::size_t found = 0, elements = 0, names = 0;
  std::fstream stream(path_, std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&stream](std::size_t at, char byte) {
    stream.seekp(static_cast<std::streamoff>(at)).put(byte).flush();
  };
  for (std::size_t i = 0; i < bytes_.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      put(i, static_cast<char>(bytes_[i] ^ (1 << bit)));
      SafetensorsFile file;
      try {
        file = read_safetensors(path_);
      } catch (const CheckpointError&) {
        ++found;
        continue;
      }
      ASSERT_EQ(layout(file), layout(before)) << "bit " << bit << " of byte " << i;
      ASSERT_EQ(file.metadata.size(), 1u);
      const auto same_names = [&] {
        return std::equal(before.tensors.begin(), before.tensors.end(), file.tensors.begin(),
                          [](const auto& a, const auto& b) { return a.first == b.first; });
      };
      if (i >= data_) {
        ++elements;
        ASSERT_TRUE(same_names());
        ASSERT_EQ(file.metadata, before.metadata);
      } else {
        ++names;
        ASSERT_TRUE(!same_names() || file.metadata != before.metadata)
            << "bit " << bit << " of byte " << i;
      }
    }
    put(i, bytes_[i]);
  }
  EXPECT_EQ(elements, 8 * (3 * 4 + 4 + 8) + 1);  // all bits, and one of the boolean
  EXPECT_GT(found, 8 * data_ / 2);
  EXPECT_LT(names, 8 * std::string("ab.cemptynonumberformattext").size());
}

}  // namespace safetensors_damage_test
}  // namespace lockstep::checkpoint
