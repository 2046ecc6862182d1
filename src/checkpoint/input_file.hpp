#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace lockstep::checkpoint {

/// A file being read. What is wrong with it is a CheckpointError "the <kind> '<path>' cannot be
/// used: …".
class InputFile {
 public:
  InputFile(std::string kind, std::filesystem::path path);

  std::uint64_t size() const noexcept { return size_; }
  void read(std::uint64_t offset, void* bytes, std::uint64_t size);
  [[noreturn]] void fail(const std::string& why) const;

 private:
  std::string kind_;
  std::filesystem::path path_;
  std::ifstream stream_;
  std::uint64_t size_ = 0;
};

}  // namespace lockstep::checkpoint
