#include "checkpoint/file.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <string>

#include "lockstep/core/error.hpp"

namespace lockstep::checkpoint {

static_assert(std::endian::native == std::endian::little,
              "checkpoints are little-endian, and are written as numbers lie in memory");

namespace {

void write_padding(OutputFile& file, std::uint64_t from, std::uint64_t to) {
  constexpr char zeros[alignment] = {};
  file.write(zeros, to - from);
}

void write_all(OutputFile& file, const FlatState& state, const Header& header) {
  const std::string text = encode(header);
  if (text.size() > max_header_bytes) {
    throw CheckpointError(
        fmt::format("the names and scalars take {} bytes, more than the {} that "
                    "a checkpoint's header may have",
                    text.size(), max_header_bytes));
  }
  Preface preface{.magic = {},
                  .version = format_version,
                  .reserved = 0,
                  .header_bytes = text.size(),
                  .header_checksum = XXH3_64bits(text.data(), text.size())};
  std::memcpy(preface.magic, magic, sizeof magic);
  file.write(&preface, sizeof preface);
  file.write(text.data(), text.size());
  const std::uint64_t data = align(sizeof preface + text.size());
  std::uint64_t position = sizeof preface + text.size();
  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    const std::uint64_t start = data + header.tensors[i].offset;
    write_padding(file, position, start);
    file.write(state.tensors[i].raw(), state.tensors[i].bytes());
    position = start + state.tensors[i].bytes();
  }
  Trailer trailer{.file_bytes = position + sizeof(Trailer), .magic = {}};
  std::memcpy(trailer.magic, end_magic, sizeof end_magic);
  file.write(&trailer, sizeof trailer);
  file.sync();
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (status.type() == std::filesystem::file_type::not_found) fail("there is no such file");
    if (status.type() == std::filesystem::file_type::none) fail(error.message());
    if (!std::filesystem::is_regular_file(status)) fail("it is not a regular file");
    size_ = std::filesystem::file_size(path, error);
    stream_.open(path, std::ios::binary);
    if (error || !stream_) fail("it cannot be opened for reading");
  }

  FileContents read() {
    Preface preface;
    if (size_ < sizeof(Preface) + sizeof(Trailer)) {
      fail(fmt::format("it has only {} bytes", size_));
    }
    read_at(0, &preface, sizeof preface);
    if (std::memcmp(preface.magic, magic, sizeof magic) != 0) {
      fail("it does not begin as a checkpoint does");
    }
    if (preface.version != format_version) {
      fail(fmt::format("its format is version {}, this build reads version {}", preface.version,
                       format_version));
    }
    if (preface.reserved != 0) fail("bytes 12 to 15, which are reserved, are not zero");
    const std::uint64_t room = size_ - sizeof(Preface) - sizeof(Trailer);
    if (preface.header_bytes > std::min(room, max_header_bytes)) {
      fail(fmt::format("its header claims {} bytes of a file of {}", preface.header_bytes, size_));
    }
    check_trailer();
    std::string text(preface.header_bytes, '\0');
    read_at(sizeof preface, text.data(), text.size());
    if (XXH3_64bits(text.data(), text.size()) != preface.header_checksum) {
      fail("the checksum of its header is wrong");
    }
    return read_tensors(decode_header(text), sizeof preface + text.size());
  }

 private:
  [[noreturn]] void fail(const std::string& why) const {
    throw CheckpointError(
        fmt::format("the checkpoint '{}' cannot be used: {}", path_.string(), why));
  }

  void read_at(std::uint64_t offset, void* bytes, std::uint64_t size) {
    stream_.seekg(static_cast<std::streamoff>(offset));
    stream_.read(static_cast<char*>(bytes), static_cast<std::streamsize>(size));
    if (!stream_) fail(fmt::format("reading {} bytes at {} failed", size, offset));
  }

  void check_trailer() {
    Trailer trailer;
    read_at(size_ - sizeof trailer, &trailer, sizeof trailer);
    if (std::memcmp(trailer.magic, end_magic, sizeof end_magic) != 0) {
      fail(fmt::format("it is cut off, or something follows its end, at byte {}", size_));
    }
    if (trailer.file_bytes != size_) {
      fail(fmt::format("it has {} bytes of the {} that were written", size_, trailer.file_bytes));
    }
  }

  Header decode_header(const std::string& text) const {
    try {
      return decode(text);
    } catch (const CheckpointError& error) {
      fail(error.what());
    }
  }

  FileContents read_tensors(Header header, std::uint64_t header_end) {
    const std::uint64_t data = align(header_end);
    std::uint64_t end = header_end;
    if (!header.tensors.empty()) {
      end = data + header.tensors.back().offset + header.tensors.back().bytes;
    }
    if (end + sizeof(Trailer) != size_) {
      fail(fmt::format("its header describes {} bytes, it has {}", end + sizeof(Trailer), size_));
    }
    FileContents contents{.header = std::move(header), .tensors = {}};
    contents.tensors = allocate_tensors(contents.header);
    std::uint64_t position = header_end;
    for (std::size_t i = 0; i < contents.tensors.size(); ++i) {
      const TensorRecord& record = contents.header.tensors[i];
      check_padding(position, data + record.offset);
      read_at(data + record.offset, contents.tensors[i].raw(), record.bytes);
      if (XXH3_64bits(contents.tensors[i].raw(), record.bytes) != record.checksum) {
        fail(fmt::format("the checksum of '{}' is wrong", tensor_path(contents.header, i)));
      }
      position = data + record.offset + record.bytes;
    }
    return contents;
  }

  void check_padding(std::uint64_t from, std::uint64_t to) {
    std::array<char, alignment> bytes;
    read_at(from, bytes.data(), to - from);
    if (std::any_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(to - from),
                    [](char c) { return c != 0; })) {
      fail(fmt::format("the padding from byte {} to {} is not zero", from, to));
    }
  }

  static std::string tensor_path(const Header& header, std::size_t tensor) {
    const auto record = std::find_if(
        header.records.begin(), header.records.end(), [tensor](const StateRecord& candidate) {
          return candidate.kind == StateRecord::tensor && candidate.number == tensor;
        });
    return path_of(header.records, static_cast<std::size_t>(record - header.records.begin()));
  }

  std::filesystem::path path_;
  std::ifstream stream_;
  std::uint64_t size_ = 0;
};

}  // namespace

void write_state(const std::filesystem::path& path, const FlatState& state, const Header& header,
                 FileSystem& files) {
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  try {
    write_all(*files.create(temporary), state, header);
    files.rename(temporary, path);
  } catch (...) {
    files.remove(temporary);
    throw;
  }
  files.sync_folder(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

FileContents read_contents(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace lockstep::checkpoint
