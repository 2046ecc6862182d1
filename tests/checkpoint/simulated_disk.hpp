#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/file_system.hpp"

namespace lockstep::testing {

/// Thrown by the operation in which the power fails.
struct PowerCut {};

/// Files in memory, of which a power cut loses what was not synced: data of files, by file, and
/// names, by folder.
class SimulatedDisk : public checkpoint::FileSystem {
 public:
  /// What is left of the data of a file that were not synced: nothing, a part of them from the
  /// front, some of the 512-byte sectors, with zeros or what was there before in the others, or all.
  enum class Data { none, front, sectors, all };
  /// Which changes to names are left that were not synced: none, the first ones, any, or all.
  enum class Names { none, first, any, all };

  /// The power fails in this operation, counted from 0, which may still have had its effect.
  void cut_power_in(std::size_t operation) { cut_ = operations_ + operation; }
  std::size_t operations() const noexcept { return operations_; }

  /// The disk as it is when the power is back.
  void restart(Data data, Names names, std::mt19937& random) {
    for (const Change& change : unsynced_) {
      if (names == Names::any && random() % 2 == 0) continue;
      if (names == Names::none || (names == Names::first && random() % 3 == 0)) break;
      apply(change, synced_names_);
    }
    unsynced_.clear();
    names_ = synced_names_;
    for (auto& [path, file] : names_) {
      file->bytes = file->synced = left_of(*file, data, random);
    }
    cut_ = SIZE_MAX;
    is_off_ = false;
  }

  /// The bytes of a file, as a program reads them.
  std::optional<std::string> read(const std::filesystem::path& path) const {
    const auto found = names_.find(path);
    if (found == names_.end()) return std::nullopt;
    return found->second->bytes;
  }

  std::unique_ptr<checkpoint::OutputFile> create(const std::filesystem::path& path) override {
    check_power();
    const auto found = names_.find(path);
    auto file = found == names_.end() ? std::make_shared<File>() : found->second;
    file->bytes.clear();
    if (found == names_.end()) change({.from = {}, .to = path, .file = file});
    count();
    return std::make_unique<Output>(*this, file);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    check_power();
    change({.from = from, .to = to, .file = names_.at(from)});
    count();
  }
  void sync_folder(const std::filesystem::path& folder) override {
    check_power();
    count();
    std::erase_if(unsynced_, [&](const Change& change) {
      if ((change.to.empty() ? change.from : change.to).parent_path() != folder) return false;
      apply(change, synced_names_);
      return true;
    });
  }
  void remove(const std::filesystem::path& path) noexcept override {
    if (!is_off_ && names_.contains(path)) change({.from = path, .to = {}, .file = nullptr});
  }

 private:
  struct File {
    std::string bytes, synced;
  };
  using NameTable = std::map<std::filesystem::path, std::shared_ptr<File>>;
  // A file that is created has no `from`, one that is removed no `to`.
  struct Change {
    std::filesystem::path from, to;
    std::shared_ptr<File> file;
  };

  class Output : public checkpoint::OutputFile {
   public:
    Output(SimulatedDisk& disk, std::shared_ptr<File> file)
        : disk_(&disk), file_(std::move(file)) {}
    void write(const void* bytes, std::size_t size) override {
      disk_->check_power();
      file_->bytes.append(static_cast<const char*>(bytes), size);
      disk_->count();
    }
    void sync() override {
      disk_->check_power();
      disk_->count();
      file_->synced = file_->bytes;
    }

   private:
    SimulatedDisk* disk_;
    std::shared_ptr<File> file_;
  };

  static void apply(const Change& change, NameTable& names) {
    if (!change.from.empty()) names.erase(change.from);
    if (!change.to.empty()) names[change.to] = change.file;
  }

  static std::string left_of(const File& file, Data data, std::mt19937& random) {
    if (data == Data::none) return file.synced;
    if (data == Data::all) return file.bytes;
    if (data == Data::front) {
      const std::size_t size = random() % (file.bytes.size() + 1);
      std::string left = file.synced;
      return left.replace(0, std::min(size, left.size()), file.bytes, 0, size);
    }
    const std::size_t shorter = std::min(file.bytes.size(), file.synced.size());
    const std::size_t longer = std::max(file.bytes.size(), file.synced.size());
    std::string left(shorter + random() % (longer - shorter + 1), '\0');
    const std::string* source = nullptr;
    for (std::size_t i = 0; i < left.size(); ++i) {
      if (i % 512 == 0) source = random() % 4 == 0 ? &file.synced : &file.bytes;
      if (i < source->size()) left[i] = (*source)[i];
    }
    return left;
  }

  void change(const Change& change) {
    apply(change, names_);
    unsynced_.push_back(change);
  }
  void check_power() const {
    if (is_off_) throw PowerCut();
  }
  void count() {
    is_off_ = operations_++ == cut_;
    check_power();
  }

  NameTable names_, synced_names_;
  std::vector<Change> unsynced_;
  std::size_t operations_ = 0, cut_ = SIZE_MAX;
  bool is_off_ = false;
};

}  // namespace lockstep::testing
