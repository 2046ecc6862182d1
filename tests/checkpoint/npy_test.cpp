// NPY files of numpy itself: golden/npy.py.
#include "lockstep/checkpoint/npy.hpp"

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/allocation_counter.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace npy_test {

using testing::throws;

class Npy : public ::testing::Test {
 protected:
  static std::string golden(const std::string& name) {
    std::ifstream file(LOCKSTEP_GOLDEN_DIR "/npy.json");
    const auto hex = nlohmann::json::parse(file).at(name).get<std::string>();
    std::string bytes;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return bytes;
  }
  Tensor read(const std::string& bytes) const {
    testing::write_bytes(path_, bytes);
    return read_npy(path_);
  }
  template <class... Parts>
  ::testing::AssertionResult is_refused(const std::string& bytes, const Parts&... parts) const {
    testing::write_bytes(path_, bytes);
    const std::size_t before = testing::allocated_bytes();
    const auto result = throws<CheckpointError>([&] { read_npy(path_); },
                                                "the NPY file '" + path_.string() + "'", parts...);
    const std::size_t taken = testing::allocated_bytes() - before;
    if (taken > 2'000'000) return ::testing::AssertionFailure() << "took " << taken << " bytes";
    return result;
  }
  // The file of a header with its length, and data behind it.
  static std::string file_of(const std::string& header, const std::string& data = {}) {
    const auto size = static_cast<std::uint16_t>(header.size());
    return std::string("\x93NUMPY\1\0", 8) +
           std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
  }
  static std::string shaped(const std::string& shape, const std::string& data = {}) {
    return file_of("{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + ", }\n", data);
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file.npy";
};

TEST_F(Npy, files_of_numpy_are_read_and_written_to_the_byte) {
  std::vector<float> eighths;
  for (int i = 0; i < 6; ++i) eighths.push_back(static_cast<float>(i / 8.0 - 0.1));
  const std::vector<std::int64_t> integers{INT64_MIN, -1, INT64_MAX};
  const std::vector<std::pair<std::string, Tensor>> expected{
      {"f4 of two axes", Tensor::from(eighths, {2, 3})},
      {"f8 without axes", Tensor::full({}, 0.1, DType::f64)},
      {"i8 of one axis", Tensor::from(integers, {3})},
      {"u1 without elements", Tensor::zeros({0, 5}, DType::u8)},
      {"f4 of eight axes", Tensor::full({1, 2, 1, 2, 1, 2, 1, 2}, 1)}};
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(bit_equal(read(golden(name)), tensor)) << name;
    write_npy(path_, tensor);
    EXPECT_EQ(testing::read_bytes(path_), golden(name)) << name;
  }
}

TEST_F(Npy, version_2_is_read_as_well) {
  const std::vector<float> numbers{1.5F, -2.5F};
  EXPECT_TRUE(bit_equal(read(golden("version 2.0")), Tensor::from(numbers, {2})));
}

TEST_F(Npy, other_arrays_are_refused) {
  EXPECT_TRUE(is_refused(golden("version 3.0"), "version 1.0 or 2.0", "found 3.0"));
  EXPECT_TRUE(is_refused(golden("Fortran order"), "shape (2, 3)", "Fortran order"));
  EXPECT_TRUE(is_refused(golden("big-endian"), "<f4, <f8, <i8, |u1", "found '>f8'"));
  EXPECT_TRUE(is_refused(golden("objects"), "found '|O'"));
  EXPECT_TRUE(is_refused(golden("half precision"), "found '<f2'"));
  EXPECT_TRUE(is_refused(golden("records"), "not that of an array of numbers", "('a', '<f4')"));
  EXPECT_TRUE(is_refused(golden("nine axes"), "not that of an array of numbers"));
}

TEST_F(Npy, fortran_order_of_one_axis_is_no_order) {
  const auto file = [](const std::string& shape) {
    return file_of("{'descr': '|u1', 'fortran_order': True, 'shape': " + shape + ", }\n", "aa");
  };
  EXPECT_TRUE(bit_equal(read(file("(2,)")), Tensor::full({2}, 'a', DType::u8)));
  EXPECT_TRUE(is_refused(file("(2, 1)"), "shape (2, 1)", "Fortran order"));
}

TEST_F(Npy, headers_of_another_form_are_refused) {
  EXPECT_TRUE(bit_equal(read(shaped("(2,)", "ab")).rows(1, 2), Tensor::full({1}, 'b', DType::u8)));
  for (const char* shape : {"2", "(2)", "[2]", "(2, )", "(2,,)", "(,)", "(-2,)", "(2.0,)", "(2L,)",
                            "( 2,)", "(2,1)", "(2, 1,)", "(2,), 'more': 1", "None"}) {
    EXPECT_TRUE(is_refused(shaped(shape, "ab"), "not that of an array")) << shape;
  }
  EXPECT_TRUE(is_refused(shaped("(02,)", "ab"), "the extent 02"));
  EXPECT_TRUE(is_refused(shaped("(9999999999999999999,)", "ab"), "the extent 9999999999999999999"));
  EXPECT_TRUE(is_refused(shaped("(4294967296, 4294967296)"), "too many elements"));
  EXPECT_TRUE(is_refused(shaped("(4294967296, 4294967296, 0)"), "too many elements"));
  EXPECT_TRUE(is_refused(shaped("(1000000000000,)", "ab"), "expected 1000000000000 elements"));
  for (const char* header :
       {"\n", "{}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (0,)}\n",
        "{'fortran_order': False, 'descr': '|u1', 'shape': (0,), }\n",
        "{'descr': '|u1', 'fortran_order': 0, 'shape': (0,), }\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }\t\n",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }\n\n"}) {
    EXPECT_TRUE(is_refused(file_of(header), "not that of an array")) << header;
  }
  EXPECT_TRUE(is_refused(file_of("{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }"),
                         "does not end with a new line"));
  EXPECT_TRUE(is_refused(file_of(std::string(9999, '(') + '\n'), "not that of an array"));
  EXPECT_TRUE(is_refused(file_of(std::string(10000, ' ') + '\n'), "may have 10000"));
}

TEST_F(Npy, truncation_is_found_at_every_length_and_so_is_what_follows) {
  for (const char* name : {"f4 of two axes", "version 2.0", "u1 without elements"}) {
    const std::string bytes = golden(name);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_TRUE(is_refused(bytes.substr(0, size))) << size;
    }
    EXPECT_TRUE(is_refused(bytes + '\0'));
  }
}

TEST_F(Npy, a_changed_bit_is_found_or_changes_only_an_element) {
  const std::string bytes = golden("f4 of two axes");
  const Tensor before = read(bytes);
  const std::size_t data = bytes.size() - 24;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      if (i < data) {
        ASSERT_TRUE(is_refused(changed)) << "bit " << bit << " of byte " << i;
      } else {
        const Tensor after = read(changed);
        ASSERT_EQ(after.shape(), before.shape());
        ASSERT_EQ(after.dtype(), before.dtype());
      }
    }
  }
}

TEST_F(Npy, a_file_that_is_not_there_and_one_that_cannot_be_written) {
  EXPECT_TRUE(throws<CheckpointError>([&] { read_npy(folder_ / "none"); }, "no such file"));
  EXPECT_TRUE(throws<CheckpointError>([&] { write_npy(folder_ / "none/file", Tensor::zeros({1})); },
                                      "cannot create"));
  EXPECT_TRUE(throws<StateError>([&] { write_npy(path_, Tensor()); }, "undefined"));
}

}  // namespace npy_test
}  // namespace lockstep::checkpoint
