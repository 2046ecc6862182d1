#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/file_system.hpp"
#include "checkpoint/format.hpp"
#include "checkpoint/input_file.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"

namespace lockstep::checkpoint {

using Bytes = std::span<const std::byte>;
inline Bytes bytes_of(const Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.raw()), tensor.bytes()};
}

/// Hands over the bytes of a tensor, by its number, in one or several pieces.
using ReadTensor = std::function<void(std::size_t tensor, const std::function<void(Bytes)>& write)>;

/// Writes a file as replace_file does it. Throws CheckpointError.
void write_state(const std::filesystem::path& path, const Header& header, const ReadTensor& read,
                 FileSystem& files);
void write_state(const std::filesystem::path& path, const FlatState& state, const Header& header,
                 FileSystem& files);

/// A file that is read once, from its beginning to its end. Throws CheckpointError, with the path and
/// what is wrong.
class FileReader {
 public:
  /// Reads all but the tensors, and verifies its checksum.
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();

  const std::string& header_text() const noexcept;
  std::uint64_t bytes() const noexcept;

  /// The header, and that the file is as long as it says; comes once, before all that follows.
  Header decode();
  /// Bytes from the beginning of the data to the end of the last tensor.
  std::uint64_t data_bytes() const noexcept;
  /// The next bytes of the data, so many at the most; verifies each tensor that ends in them, and what
  /// lies between tensors.
  void read(std::span<std::byte> bytes);

  /// The same in two steps: any bytes of the data, by their offset, and the next ones, in order.
  void read_at(std::uint64_t offset, std::span<std::byte> bytes) const;
  void verify(std::span<const std::byte> bytes);

  /// For others who read the same file: which it is, and where in it the data begin.
  InputFile::Identity identity() const noexcept;
  std::uint64_t data_begin() const noexcept;

 private:
  class File;
  std::unique_ptr<File> file_;
};

struct FileContents {
  Header header;
  std::vector<Tensor> tensors;
};

/// Reads a file and verifies every checksum; `progress` is told how many bytes of the data are done.
/// CheckpointError, with the path and what is wrong.
FileContents read_contents(const std::filesystem::path& path,
                           const std::function<void(std::uint64_t bytes_done)>& progress = {});

}  // namespace lockstep::checkpoint
