#include "checkpoint/file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "lockstep/core/error.hpp"
#include "state/checksum.hpp"

namespace lockstep::checkpoint {

static_assert(std::endian::native == std::endian::little,
              "checkpoints are little-endian, and are written as numbers lie in memory");

namespace {

// Writes what is short in one piece with what comes before and after.
class Writer {
 public:
  explicit Writer(OutputFile& file) : file_(file) {}

  void write(const void* bytes, std::size_t size) {
    if (size >= most_bytes) {
      flush();
      file_.write(bytes, size);
    } else {
      pending_.append(static_cast<const char*>(bytes), size);
      if (pending_.size() >= most_bytes) flush();
    }
    position_ += size;
  }
  void pad_to(std::uint64_t position) {
    constexpr char zeros[alignment] = {};
    write(zeros, position - position_);
  }
  void flush() {
    if (!pending_.empty()) file_.write(pending_.data(), pending_.size());
    pending_.clear();
  }

  std::uint64_t position() const noexcept { return position_; }

 private:
  static constexpr std::size_t most_bytes = std::size_t{64} << 10;

  OutputFile& file_;
  std::string pending_;
  std::uint64_t position_ = 0;
};

void write_all(OutputFile& output, const Header& header, const ReadTensor& read) {
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
                  .header_checksum = checksum(std::as_bytes(std::span(text)))};
  std::memcpy(preface.magic, magic, sizeof magic);
  Writer file(output);
  file.write(&preface, sizeof preface);
  file.write(text.data(), text.size());
  file.flush();
  const std::uint64_t data = align(file.position());
  for (std::size_t i = 0; i < header.tensors.size(); ++i) {
    file.pad_to(data + header.tensors[i].offset);
    read(i, [&file](Bytes bytes) { file.write(bytes.data(), bytes.size()); });
  }
  file.flush();
  Trailer trailer{.file_bytes = file.position() + sizeof(Trailer), .magic = {}};
  std::memcpy(trailer.magic, end_magic, sizeof end_magic);
  file.write(&trailer, sizeof trailer);
  file.flush();
}

// Bytes of which progress is told at a time.
constexpr std::size_t piece_bytes = std::size_t{4} << 20;

// Bytes that are read before they are verified, while they are in the cache.
constexpr std::size_t verified_bytes = std::size_t{1} << 18;

std::string tensor_path(const std::vector<StateRecord>& records, std::size_t tensor) {
  const auto record =
      std::find_if(records.begin(), records.end(), [tensor](const StateRecord& candidate) {
        return candidate.kind == StateRecord::tensor && candidate.number == tensor;
      });
  return path_of(records, static_cast<std::size_t>(record - records.begin()));
}

}  // namespace

class FileReader::File {
 public:
  explicit File(const std::filesystem::path& path)
      : file_("checkpoint", path), size_(file_.size()) {
    read_header();
  }

  const std::string& header_text() const noexcept { return text_; }
  std::uint64_t bytes() const noexcept { return size_; }

  Header decode() {
    Header header = decoded();
    tensors_ = header.tensors;
    find_data(sizeof(Preface) + text_.size());
    return header;
  }

  std::uint64_t data_bytes() const noexcept { return data_bytes_; }

  void read(std::span<std::byte> bytes) {
    while (!bytes.empty()) {
      const std::span<std::byte> some = bytes.first(std::min(bytes.size(), verified_bytes));
      read_data(position_, some);
      verify(some);
      bytes = bytes.subspan(some.size());
    }
  }

  void read_data(std::uint64_t offset, std::span<std::byte> bytes) const {
    read_at(data_ + offset, bytes.data(), bytes.size());
  }

  InputFile::Identity identity() const noexcept { return file_.identity(); }
  std::uint64_t data_begin() const noexcept { return data_; }

  // The bytes that come next.
  void verify(std::span<const std::byte> bytes) {
    while (next_ < tensors_.size()) {
      const TensorRecord& tensor = tensors_[next_];
      const std::uint64_t begin = tensor.offset, end = tensor.offset + tensor.bytes;
      if (position_ == end) {
        end_tensor();
        continue;
      }
      if (bytes.empty()) return;
      const std::uint64_t stop = position_ < begin ? begin : end;
      const auto some = bytes.first(std::min<std::uint64_t>(bytes.size(), stop - position_));
      if (position_ < begin) {
        check_padding(data_ + position_, some);
      } else {
        checksum_.add(some);
      }
      position_ += some.size();
      bytes = bytes.subspan(some.size());
    }
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { file_.fail(why); }

  void read_at(std::uint64_t offset, void* bytes, std::uint64_t size) const {
    file_.read(offset, bytes, size);
  }

  void read_header() {
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
    text_.resize(preface.header_bytes);
    read_at(sizeof preface, text_.data(), text_.size());
    if (checksum(std::as_bytes(std::span(text_))) != preface.header_checksum) {
      fail("the checksum of its header is wrong");
    }
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

  Header decoded() const {
    try {
      return checkpoint::decode(text_);
    } catch (const CheckpointError& error) {
      fail(error.what());
    }
  }

  void find_data(std::uint64_t header_end) {
    data_ = align(header_end);
    std::uint64_t end = header_end;
    if (!tensors_.empty()) {
      data_bytes_ = tensors_.back().offset + tensors_.back().bytes;
      end = data_ + data_bytes_;
    }
    if (end + sizeof(Trailer) != size_) {
      fail(fmt::format("its header describes {} bytes, it has {}", end + sizeof(Trailer), size_));
    }
    if (tensors_.empty()) return;
    std::array<std::byte, alignment> padding;
    const std::span<std::byte> used = std::span(padding).first(data_ - header_end);
    read_at(header_end, used.data(), used.size());
    check_padding(header_end, used);
    verify({});
  }

  void end_tensor() {
    if (checksum_.take() != tensors_[next_].checksum) {
      fail(fmt::format("the checksum of '{}' is wrong", tensor_path(decoded().records, next_)));
    }
    ++next_;
  }

  void check_padding(std::uint64_t from, std::span<const std::byte> bytes) const {
    if (std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; })) {
      return;
    }
    fail(fmt::format("the padding from byte {} to {} is not zero", from, from + bytes.size()));
  }

  InputFile file_;
  Checksum checksum_;
  std::uint64_t size_;
  std::string text_;  // of the header
  std::vector<TensorRecord> tensors_;
  std::uint64_t data_ = 0;  // where in the file the data begin
  std::uint64_t data_bytes_ = 0;
  std::uint64_t position_ = 0;  // in the data
  std::size_t next_ = 0;        // tensor that is not verified yet
};

FileReader::FileReader(const std::filesystem::path& path) : file_(std::make_unique<File>(path)) {}
FileReader::~FileReader() = default;

const std::string& FileReader::header_text() const noexcept { return file_->header_text(); }

std::uint64_t FileReader::bytes() const noexcept { return file_->bytes(); }

Header FileReader::decode() { return file_->decode(); }

std::uint64_t FileReader::data_bytes() const noexcept { return file_->data_bytes(); }

void FileReader::read(std::span<std::byte> bytes) { file_->read(bytes); }

void FileReader::read_at(std::uint64_t offset, std::span<std::byte> bytes) const {
  file_->read_data(offset, bytes);
}

void FileReader::verify(std::span<const std::byte> bytes) { file_->verify(bytes); }

InputFile::Identity FileReader::identity() const noexcept { return file_->identity(); }

std::uint64_t FileReader::data_begin() const noexcept { return file_->data_begin(); }

void write_state(const std::filesystem::path& path, const Header& header, const ReadTensor& read,
                 FileSystem& files) {
  replace_file(path, files, [&](OutputFile& file) { write_all(file, header, read); });
}

void write_state(const std::filesystem::path& path, const FlatState& state, const Header& header,
                 FileSystem& files) {
  const auto read = [&state](std::size_t tensor, const std::function<void(Bytes)>& write) {
    write(bytes_of(state.tensors[tensor]));
  };
  write_state(path, header, read, files);
}

FileContents read_contents(const std::filesystem::path& path,
                           const std::function<void(std::uint64_t bytes_done)>& progress) {
  FileReader file(path);
  FileContents contents{.header = file.decode(), .tensors = {}};
  contents.tensors = allocate_tensors(contents.header);
  std::uint64_t position = 0;
  std::array<std::byte, alignment> padding;
  for (std::size_t i = 0; i < contents.tensors.size(); ++i) {
    const TensorRecord& record = contents.header.tensors[i];
    file.read(std::span(padding).first(record.offset - position));
    std::span bytes(static_cast<std::byte*>(contents.tensors[i].raw()), record.bytes);
    position = record.offset;
    while (!bytes.empty()) {
      const auto some = bytes.first(std::min(bytes.size(), piece_bytes));
      file.read(some);
      bytes = bytes.subspan(some.size());
      position += some.size();
      if (progress) progress(position);
    }
  }
  return contents;
}

}  // namespace lockstep::checkpoint
