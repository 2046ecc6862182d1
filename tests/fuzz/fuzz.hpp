#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "checkpoint/file_system.hpp"

// What libFuzzer's targets have in common.

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace lockstep::checkpoint {

/// Of each target: reads an input, and ends the program where that is not as it should be.
void read(const std::uint8_t* data, std::size_t size);
/// Another file made of this one, without which hardly anything behind lengths and checksums would be reached.
std::string mutated(const std::string& file, std::size_t max_size, unsigned seed);
/// One in so many inputs is changed by libFuzzer alone.
extern const unsigned plain_seeds;

/// How far inputs have come, which is printed at the end.
struct Counts {
  explicit Counts(const char* hurdle) : hurdle(hurdle) {}
  ~Counts() {
    std::printf("%ld accepted, %ld refused behind %s, %ld before\n", accepted, behind, hurdle,
                before);
  }
  const char* hurdle;
  long accepted = 0, behind = 0, before = 0;
};

/// A file in memory, with a path for the reader. All files written in it as a file system are itself.
class MemoryFile : public FileSystem {
 public:
  explicit MemoryFile(const void* bytes = nullptr, std::size_t size = 0)
      : descriptor_(memfd_create("fuzz", 0)) {
    if (descriptor_ < 0) std::abort();
    write(bytes, size);
  }
  ~MemoryFile() override { ::close(descriptor_); }

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  const std::string& bytes() const { return bytes_; }

  std::unique_ptr<OutputFile> create(const std::filesystem::path&) override {
    return std::make_unique<Output>(*this);
  }
  void rename(const std::filesystem::path&, const std::filesystem::path&) override {}
  void sync_folder(const std::filesystem::path&) override {}
  void remove(const std::filesystem::path&) noexcept override {}

 private:
  struct Output : OutputFile {
    explicit Output(MemoryFile& owner) : file(&owner) {}
    void write(const void* bytes, std::size_t size) override { file->write(bytes, size); }
    void sync() override {}
    MemoryFile* file;
  };

  void write(const void* bytes, std::size_t size) {
    if (size == 0) return;
    bytes_.append(static_cast<const char*>(bytes), size);
    if (::write(descriptor_, bytes, size) != static_cast<ssize_t>(size)) std::abort();
  }

  int descriptor_;
  std::string bytes_;
};

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::abort();
}

inline void mutate(std::string& bytes, std::size_t max_size) {
  const std::size_t size = bytes.size();
  bytes.resize(std::max(size, max_size));
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(bytes.data()), size, bytes.size()));
}

}  // namespace lockstep::checkpoint
