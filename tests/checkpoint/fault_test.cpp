// What is left on disk when an operation on files fails.
#include <sys/resource.h>

#include <csignal>
#include <new>
#include <string>
#include <vector>

#include "checkpoint/file.hpp"
#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace fault_test {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::throws;

// The operating system's files, of whose operations one fails, halfway where it can.
class FaultyFileSystem : public FileSystem {
 public:
  explicit FaultyFileSystem(std::size_t failing = SIZE_MAX) : failing_(failing) {}

  std::unique_ptr<OutputFile> create(const std::filesystem::path& path) override {
    begin("create");
    return std::make_unique<File>(*this, files_->create(path));
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    begin("rename");
    files_->rename(from, to);
  }
  void sync_folder(const std::filesystem::path& folder) override {
    begin("sync_folder " + folder.filename().string());
    files_->sync_folder(folder);
  }
  void remove(const std::filesystem::path& path) noexcept override { files_->remove(path); }

  const std::vector<std::string>& operations() const { return operations_; }

 private:
  class File : public OutputFile {
   public:
    File(FaultyFileSystem& owner, std::unique_ptr<OutputFile> file)
        : owner_(&owner), file_(std::move(file)) {}
    ~File() override { owner_->operations_.push_back("close"); }

    void write(const void* bytes, std::size_t size) override {
      try {
        owner_->begin("write");
      } catch (const CheckpointError&) {
        file_->write(bytes, size / 2);
        throw;
      }
      file_->write(bytes, size);
    }
    void sync() override {
      owner_->begin("sync");
      file_->sync();
    }

   private:
    FaultyFileSystem* owner_;
    std::unique_ptr<OutputFile> file_;
  };

  void begin(const std::string& operation) {
    operations_.push_back(operation);
    if (operations_.size() - 1 == failing_) throw CheckpointError("injected: " + operation);
  }

  std::unique_ptr<FileSystem> files_ = posix_file_system();
  std::size_t failing_;
  std::vector<std::string> operations_;
};

class Fault : public ::testing::Test {
 protected:
  Fault() {
    std::filesystem::create_directory(folder_ / "run");
    write_file(path_, before_);
    bytes_before_ = read_bytes(path_);
  }

  void write(FileSystem& files) const {
    const FlatState flat = flatten(after_);
    write_state(path_, flat, make_header(flat), files);
  }
  void expect_only_the_file_is_there() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "run")) {
      names.push_back(entry.path().filename().string());
    }
    EXPECT_EQ(names, std::vector<std::string>{"file"});
  }

  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "run/file";
  const StateDict before_{{"tensor", Tensor::full({40}, 1)}};
  const StateDict after_{{"tensor", Tensor::full({50}, 2)}, {"another", Tensor::full({3}, 3)}};
  std::string bytes_before_;
};

TEST_F(Fault, a_file_is_written_synced_closed_renamed_and_its_folder_synced) {
  FaultyFileSystem files;
  write(files);
  std::vector<std::string> operations = files.operations();
  ASSERT_GT(operations.size(), 6u);
  EXPECT_EQ(operations.front(), "create");
  const std::vector<std::string> last(operations.end() - 4, operations.end());
  EXPECT_EQ(last, (std::vector<std::string>{"sync", "close", "rename", "sync_folder run"}));
  for (std::size_t i = 1; i + 4 < operations.size(); ++i) EXPECT_EQ(operations[i], "write");
  EXPECT_TRUE(bit_equal(read_file(path_), after_));
  expect_only_the_file_is_there();
}

TEST_F(Fault, any_that_comes_before_the_rename_leaves_the_file_that_was_there) {
  FaultyFileSystem complete;
  write(complete);
  std::size_t faults = 0;
  for (std::size_t i = 0; i + 1 < complete.operations().size(); ++i) {
    if (complete.operations()[i] == "close") continue;
    write_file(path_, before_);
    FaultyFileSystem files(i);
    EXPECT_TRUE(throws<CheckpointError>([&] { write(files); }, "injected"));
    EXPECT_EQ(read_bytes(path_), bytes_before_) << complete.operations()[i] << ", number " << i;
    EXPECT_TRUE(bit_equal(read_file(path_), before_));
    expect_only_the_file_is_there();
    ++faults;
  }
  EXPECT_GE(faults, 6u);
}

TEST_F(Fault, every_operation_is_reported_when_it_fails) {
  FaultyFileSystem complete;
  write(complete);
  for (std::size_t i = 0; i < complete.operations().size(); ++i) {
    const std::string& operation = complete.operations()[i];
    if (operation == "close") continue;
    FaultyFileSystem files(i);
    EXPECT_TRUE(throws<CheckpointError>([&] { write(files); }, "injected: " + operation));
    expect_only_the_file_is_there();
  }
}

TEST_F(Fault, a_folder_that_cannot_be_synced_has_the_new_file) {
  FaultyFileSystem complete;
  write(complete);
  write_file(path_, before_);
  FaultyFileSystem files(complete.operations().size() - 1);
  EXPECT_TRUE(throws<CheckpointError>([&] { write(files); }, "injected: sync_folder"));
  EXPECT_TRUE(bit_equal(read_file(path_), after_));
  expect_only_the_file_is_there();
}

TEST_F(Fault, a_first_file_that_fails_leaves_nothing) {
  std::filesystem::remove(path_);
  for (const std::size_t failing : {0u, 1u, 3u}) {
    FaultyFileSystem files(failing);
    EXPECT_TRUE(throws<CheckpointError>([&] { write(files); }, "injected"));
    EXPECT_TRUE(std::filesystem::is_empty(folder_ / "run"));
  }
}

TEST_F(Fault, what_a_crash_has_left_is_written_over) {
  testing::write_bytes(folder_ / "run/file.tmp", std::string(100000, 'x'));
  write_file(path_, after_);
  EXPECT_TRUE(bit_equal(read_file(path_), after_));
  expect_only_the_file_is_there();
}

TEST_F(Fault, a_full_disk_is_reported_with_its_reason) {
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 200, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_TRUE(throws<CheckpointError>([&] { write_file(path_, after_); }, "cannot write",
                                      path_.string() + ".tmp", "File too large"));
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_bytes(path_), bytes_before_);
  expect_only_the_file_is_there();
}

TEST_F(Fault, a_path_that_cannot_be_written_is_reported_with_its_reason) {
  EXPECT_TRUE(throws<CheckpointError>([&] { write_file(folder_ / "none/file", after_); },
                                      "cannot create", "none/file", "No such file or directory"));
  EXPECT_TRUE(throws<CheckpointError>([&] { write_file(path_ / "below", after_); }, "cannot create",
                                      "Not a directory"));
  EXPECT_TRUE(throws<CheckpointError>([&] { write_file(folder_ / std::string(300, 'n'), after_); },
                                      "cannot create", "File name too long"));
  std::filesystem::create_directory(folder_ / "folder");
  EXPECT_TRUE(throws<CheckpointError>([&] { write_file(folder_ / "folder", after_); },
                                      "cannot replace", "Is a directory"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "folder.tmp"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "folder"));
}

}  // namespace fault_test
}  // namespace lockstep::checkpoint
