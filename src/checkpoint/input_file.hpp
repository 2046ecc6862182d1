#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace lockstep::checkpoint {

/// A file being read. What is wrong with it is a CheckpointError "the <kind> '<path>' cannot be
/// used: …".
class InputFile {
 public:
  InputFile(std::string kind, std::filesystem::path path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::uint64_t size() const noexcept { return size_; }
  /// What tells it from all other files of this machine.
  struct Identity {
    std::int64_t device = 0, number = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };
  Identity identity() const noexcept { return identity_; }

  void read(std::uint64_t offset, void* bytes, std::uint64_t size) const;
  [[noreturn]] void fail(const std::string& why) const;

 private:
  std::string kind_;
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  Identity identity_;
};

}  // namespace lockstep::checkpoint
