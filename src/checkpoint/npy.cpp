#include "checkpoint/npy.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#ifndef __clang__
// With sanitizers, GCC 12 warns of what is in it (GCC bug 105616).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <regex>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/input_file.hpp"
#include "lockstep/core/error.hpp"

// The format: numpy.lib.format in NumPy's documentation.
namespace lockstep::checkpoint {
namespace {

constexpr std::string_view npy_magic = "\x93NUMPY";
constexpr std::array<std::string_view, 4> descriptions{"<f4", "<f8", "<i8", "|u1"};  // by DType

class NpyReader {
 public:
  explicit NpyReader(const std::filesystem::path& path) : file_("NPY file", path) {}

  Tensor read() {
    const std::string header = read_header();
    // As numpy writes it, with the keys in their order.
    static const std::regex format(
        R"re(\{'descr': '([^']{1,8})', 'fortran_order': (False|True), 'shape': )re"
        R"re(\(((?:\d{1,19}, ){1,7}\d{1,19}|\d{1,19},|)\), \})re");
    std::smatch found;
    if (!std::regex_match(header, found, format)) {
      file_.fail(
          fmt::format("its header is not that of an array of numbers: {}", header.substr(0, 200)));
    }
    const auto dtype = std::find(descriptions.begin(), descriptions.end(), found.str(1));
    if (dtype == descriptions.end()) {
      file_.fail(fmt::format("expected one of the dtypes {}, found '{}'",
                             fmt::join(descriptions, ", "), found.str(1)));
    }
    const Shape shape = read_shape(found.str(3));
    if (found.str(2) == "True" && shape.rank() > 1) {
      file_.fail(fmt::format("its array of shape {} is in Fortran order", to_string(shape)));
    }
    const auto type = static_cast<DType>(dtype - descriptions.begin());
    const std::uint64_t bytes = file_.size() - data_;
    const auto elements = static_cast<std::uint64_t>(shape.size());
    if (bytes % item_size(type) != 0 || bytes / item_size(type) != elements) {
      file_.fail(
          fmt::format("an array of shape {} and dtype '{}': expected {} elements of {} "
                      "bytes, found {} bytes",
                      to_string(shape), *dtype, elements, item_size(type), bytes));
    }
    Tensor tensor = Tensor::empty(shape, type);
    file_.read(data_, tensor.raw(), tensor.bytes());
    return tensor;
  }

 private:
  std::string read_header() {
    std::array<unsigned char, 8> begin{};
    if (file_.size() < begin.size()) file_.fail(fmt::format("it has only {} bytes", file_.size()));
    file_.read(0, begin.data(), begin.size());
    if (!std::equal(npy_magic.begin(), npy_magic.end(), begin.begin(),
                    [](char a, unsigned char b) { return static_cast<unsigned char>(a) == b; })) {
      file_.fail("it does not begin as an NPY file does");
    }
    if (begin[6] < 1 || begin[6] > 2 || begin[7] != 0) {
      file_.fail(fmt::format("expected version 1.0 or 2.0 of the format, found {}.{}", begin[6],
                             begin[7]));
    }
    const std::uint64_t length_bytes = begin[6] == 1 ? 2 : 4;
    data_ = begin.size() + length_bytes;
    std::uint64_t length = 0;
    if (file_.size() < data_) file_.fail(fmt::format("it has only {} bytes", file_.size()));
    file_.read(begin.size(), &length, length_bytes);
    constexpr std::uint64_t max_length = 10'000;  // as in numpy.load
    if (length > std::min(max_length, file_.size() - data_)) {
      file_.fail(fmt::format("its header claims {} bytes of a file of {}, and may have {}", length,
                             file_.size(), max_length));
    }
    std::string header(length, '\0');
    file_.read(data_, header.data(), length);
    data_ += length;
    if (!header.ends_with('\n')) file_.fail("its header does not end with a new line");
    header.pop_back();
    header.resize(header.find_last_not_of(' ') + 1);
    return header;
  }

  Shape read_shape(const std::string& text) const {
    static const std::regex number(R"re(\d+)re");
    std::vector<std::int64_t> extents;
    for (std::sregex_iterator next(text.begin(), text.end(), number), end; next != end; ++next) {
      const std::string digits = next->str();
      const char* last = digits.data() + digits.size();
      std::int64_t extent = 0;
      if (std::from_chars(digits.data(), last, extent).ec != std::errc() ||
          (digits.size() > 1 && digits[0] == '0')) {
        file_.fail(fmt::format("its shape has the extent {}", digits));
      }
      extents.push_back(extent);
    }
    try {
      return Shape(extents);
    } catch (const ShapeError& error) {
      file_.fail(error.what());
    }
  }

  InputFile file_;
  std::uint64_t data_ = 0;  // where the elements begin
};

}  // namespace

Tensor read_npy(const std::string& path) { return NpyReader(path).read(); }

void write_npy(const std::string& path, const Tensor& tensor) {
  write_npy(path, tensor, *posix_file_system());
}

void write_npy(const std::string& path, const Tensor& tensor, FileSystem& files) {
  if (!tensor.defined()) throw StateError("an undefined tensor cannot be written to an NPY file");
  const Shape& shape = tensor.shape();
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   descriptions[static_cast<std::size_t>(tensor.dtype())],
                                   fmt::join(shape, ", "), shape.rank() == 1 ? "," : "");
  constexpr std::size_t begin = npy_magic.size() + 4;
  header.resize((begin + header.size() + 1 + 63) / 64 * 64 - begin - 1, ' ');
  header += '\n';
  const auto length = static_cast<std::uint16_t>(header.size());
  replace_file(path, files, [&](OutputFile& file) {
    file.write(npy_magic.data(), npy_magic.size());
    file.write("\x01\x00", 2);
    file.write(&length, sizeof length);
    file.write(header.data(), header.size());
    file.write(tensor.raw(), tensor.bytes());
  });
}

}  // namespace lockstep::checkpoint
