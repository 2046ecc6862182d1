#include "lockstep/data/idx.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "lockstep/core/error.hpp"

namespace lockstep::data {
namespace {

// A multiple of every element's width, so that a chunk holds whole elements.
constexpr std::size_t chunk_bytes = 64 * 1024;

// Reads the bytes inside a plain or gzip file; every failure is a DataError that names the file.
class ByteReader {
 public:
  explicit ByteReader(const std::filesystem::path& path) : path_(path.string()) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::not_found) fail("no such file");
    if (error) fail("cannot open it: " + error.message());
    if (status.type() != std::filesystem::file_type::regular) {
      fail(std::filesystem::is_directory(status) ? "expected an IDX file, found a directory"
                                                 : "expected an IDX file, found a special file");
    }
    errno = 0;
    file_.reset(gzopen(path_.c_str(), "rbe"));
    if (!file_) fail("cannot open it: " + std::generic_category().message(errno));
    gzbuffer(file_.get(), 2 * chunk_bytes);
  }

  // Reads up to bytes.size() bytes, and fewer only at the end of the file.
  std::size_t read(std::span<unsigned char> bytes) {
    const int count = gzread(file_.get(), bytes.data(), static_cast<unsigned>(bytes.size()));
    // A truncated gzip stream is no failure to gzread, which returns the bytes before the cut.
    int code = Z_OK;
    const std::string text = gzerror(file_.get(), &code);
    if (code == Z_ERRNO) fail("cannot read it: " + std::generic_category().message(errno));
    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (count < 0 || code != Z_OK) {
      const std::string prefix = path_ + ": ";
      fail(fmt::format("damaged gzip data beyond byte {} of its contents: {}", offset_,
                       text.starts_with(prefix) ? text.substr(prefix.size()) : text));
    }
    offset_ += static_cast<std::uint64_t>(count);
    return static_cast<std::size_t>(count);
  }

  // The number of bytes from here to the end, which has been read, and its gzip checksum verified.
  std::uint64_t skip_to_end() {
    const std::uint64_t begin = offset_;
    std::vector<unsigned char> chunk(chunk_bytes);
    while (read(chunk) == chunk.size()) continue;
    return offset_ - begin;
  }

  void seek(std::uint64_t offset) {
    if (gzseek(file_.get(), static_cast<z_off_t>(offset), SEEK_SET) < 0) fail("cannot rewind it");
    offset_ = offset;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(path_ + ": " + reason);
  }

 private:
  struct Close {
    void operator()(gzFile file) const { gzclose(file); }
  };
  std::string path_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::uint64_t offset_ = 0;
};

struct Header {
  int type = 0;
  std::size_t width = 0;  // bytes of an element in the file
  DType dtype = DType::u8;
  Shape shape;
  std::uint64_t bytes = 0;  // of the header itself
};

void set_type(Header& header, int code, const ByteReader& reader) {
  header.type = code;
  switch (code) {
    case 0x08:
      header.width = 1, header.dtype = DType::u8;
      return;
    case 0x0B:
      header.width = 2, header.dtype = DType::i64;
      return;
    case 0x0C:
      header.width = 4, header.dtype = DType::i64;
      return;
    case 0x0D:
      header.width = 4, header.dtype = DType::f32;
      return;
    case 0x0E:
      header.width = 8, header.dtype = DType::f64;
      return;
    default:
      break;
  }
  reader.fail(
      fmt::format("expected IDX element type 0x08 (unsigned byte), 0x0B (short), 0x0C (int), "
                  "0x0D (float) or 0x0E (double) at offset 2, found 0x{:02X}",
                  code));
}

template <class Bits>
Bits big_endian(const unsigned char* bytes) {
  Bits bits = 0;
  for (std::size_t i = 0; i < sizeof(Bits); ++i) bits = static_cast<Bits>(bits << 8 | bytes[i]);
  return bits;
}

Header read_header(ByteReader& reader) {
  std::array<unsigned char, 4 + 4 * 255> bytes;
  const std::span<unsigned char> all(bytes);
  const std::size_t magic = reader.read(all.first(4));
  if (magic == 0) reader.fail("expected an IDX file, found an empty one");
  if (magic < 4 || bytes[0] != 0 || bytes[1] != 0) {
    reader.fail(
        fmt::format("not an IDX file: expected it to begin with 00 00, a type and a number "
                    "of axes, found {:02X}",
                    fmt::join(all.first(magic), " ")));
  }
  Header header;
  set_type(header, bytes[2], reader);
  const std::size_t axes = bytes[3];
  if (axes > Shape::max_rank) {
    reader.fail(
        fmt::format("expected at most {} axes at offset 3, found {}", Shape::max_rank, axes));
  }
  header.bytes = 4 + 4 * axes;
  const std::size_t found = reader.read(all.subspan(4, 4 * axes));
  if (found < 4 * axes) {
    reader.fail(fmt::format("truncated header: expected {} bytes for {} axes, found {}",
                            header.bytes, axes, 4 + found));
  }
  std::vector<std::int64_t> extents;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    extents.push_back(big_endian<std::uint32_t>(&bytes[4 + 4 * axis]));
  }
  try {
    header.shape = Shape(extents);
  } catch (const ShapeError& error) {
    reader.fail(std::string("implausible header: ") + error.what());
  }
  return header;
}

// Sizes are compared in elements, since the bytes of 2^62 elements do not fit in 64 bits.
void check_length(const Header& header, std::uint64_t bytes, const ByteReader& reader) {
  const auto elements = static_cast<std::uint64_t>(header.shape.size());
  const bool truncated = elements > bytes / header.width;
  if (!truncated && elements * header.width == bytes) return;
  reader.fail(
      fmt::format("{}: shape {} needs {} elements of {} bytes after offset {}, found {} bytes",
                  truncated ? "truncated" : "trailing bytes", to_string(header.shape), elements,
                  header.width, header.bytes, bytes));
}

// Bits: an unsigned integer of the element's width; File: the element's type; To: the tensor's.
template <class Bits, class File, class To>
void read_elements(ByteReader& reader, std::span<To> elements) {
  std::vector<unsigned char> chunk(chunk_bytes);
  while (!elements.empty()) {
    const std::size_t count = std::min(elements.size(), chunk.size() / sizeof(Bits));
    const auto bytes = std::span(chunk).first(count * sizeof(Bits));
    if (reader.read(bytes) < bytes.size()) reader.fail("it became shorter while it was read");
    for (std::size_t i = 0; i < count; ++i) {
      const auto bits = big_endian<Bits>(&bytes[i * sizeof(Bits)]);
      elements[i] = static_cast<To>(std::bit_cast<File>(bits));
    }
    elements = elements.subspan(count);
  }
}

}  // namespace

Tensor read_idx(const std::string& path) {
  ByteReader reader(path);
  const Header header = read_header(reader);
  // What gzip data decompresses to is known only at its end: a first pass to there costs less than
  // memory taken on the word of a damaged header.
  check_length(header, reader.skip_to_end(), reader);
  reader.seek(header.bytes);
  Tensor tensor = Tensor::empty(header.shape, header.dtype);
  using i64 = std::int64_t;
  using u8 = std::uint8_t;
  switch (header.type) {
    case 0x08:
      read_elements<u8, u8>(reader, tensor.span<u8>());
      break;
    case 0x0B:
      read_elements<std::uint16_t, std::int16_t>(reader, tensor.span<i64>());
      break;
    case 0x0C:
      read_elements<std::uint32_t, std::int32_t>(reader, tensor.span<i64>());
      break;
    case 0x0D:
      read_elements<std::uint32_t, float>(reader, tensor.span<float>());
      break;
    default:
      read_elements<std::uint64_t, double>(reader, tensor.span<double>());
      break;
  }
  return tensor;
}

}  // namespace lockstep::data
