// What is on disk after a power cut in any operation of a save.
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/file.hpp"
#include "checkpoint/simulated_disk.hpp"
#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"

LOCKSTEP_TEST_RANKS(1);

namespace lockstep::checkpoint {
namespace crash_test {

using testing::PowerCut;
using testing::SimulatedDisk;
using Data = SimulatedDisk::Data;
using Names = SimulatedDisk::Names;

StateDict state_of(int number) {
  return {{"number", number},
          {"note", std::string(static_cast<std::size_t>(40 * (number % 5)), 'n')},
          {"weights", Tensor::full({300 + 97 * (number % 7)}, number)},
          {"bias", Tensor::full({3}, number)}};
}

// Leaves out of a save what it must not, to see that the disk notices.
enum class Mistake { none, no_sync, no_folder_sync, another_folder };

class Careless : public FileSystem {
 public:
  Careless(FileSystem& files, Mistake mistake) : files_(&files), mistake_(mistake) {}

  std::unique_ptr<OutputFile> create(const std::filesystem::path& path) override {
    return std::make_unique<File>(files_->create(path), mistake_);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    files_->rename(from, to);
  }
  void sync_folder(const std::filesystem::path& folder) override {
    if (mistake_ == Mistake::no_folder_sync) return;
    files_->sync_folder(mistake_ == Mistake::another_folder ? folder / "other" : folder);
  }
  void remove(const std::filesystem::path& path) noexcept override { files_->remove(path); }

 private:
  class File : public OutputFile {
   public:
    File(std::unique_ptr<OutputFile> file, Mistake mistake)
        : file_(std::move(file)), mistake_(mistake) {}
    void write(const void* bytes, std::size_t size) override { file_->write(bytes, size); }
    void sync() override {
      if (mistake_ != Mistake::no_sync) file_->sync();
    }

   private:
    std::unique_ptr<OutputFile> file_;
    Mistake mistake_;
  };

  FileSystem* files_;
  Mistake mistake_;
};

class Crash : public ::testing::Test {
 protected:
  static constexpr int none = -1, damaged = -2;

  void save(int number) {
    const FlatState flat = flatten(state_of(number));
    write_state(path_, flat, make_header(flat), *files_);
  }
  // Whether it returned before the power failed.
  bool save_until(std::size_t operation, int number) {
    disk_.cut_power_in(operation);
    try {
      save(number);
    } catch (const PowerCut&) {
      return false;
    }
    return true;
  }
  std::size_t operations_of_a_save() {
    const std::size_t before = disk_.operations();
    save(1);
    return disk_.operations() - before;
  }
  void start_anew() { disk_ = SimulatedDisk(); }

  // The number of the state that the real reader finds.
  int number_on_disk() {
    const std::optional<std::string> bytes = disk_.read(path_);
    if (!bytes) return none;
    const auto [known, is_new] = numbers_.try_emplace(*bytes, damaged);
    if (is_new) known->second = number_in(*bytes);
    return known->second;
  }
  int number_in(const std::string& bytes) const {
    testing::write_bytes(path_, bytes);
    try {
      const StateDict state = read_file(path_);
      const auto number = static_cast<int>(state.at("number").as_int());
      return bit_equal(state, state_of(number)) ? number : damaged;
    } catch (const CheckpointError&) {
      return damaged;
    }
  }

  // For each operation, and everything that can be lost after it.
  template <class Check>
  void for_each_crash(int seeds, const Check& check) {
    const std::size_t operations = operations_of_a_save();
    for (std::size_t k = 0; k <= operations; ++k) {
      for (const Data data : {Data::none, Data::front, Data::sectors, Data::all}) {
        for (const Names names : {Names::none, Names::first, Names::any, Names::all}) {
          for (int seed = 0; seed < seeds; ++seed) {
            std::mt19937 random(static_cast<unsigned>(seed));
            check(k, k == operations, [&] { disk_.restart(data, names, random); });
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }

  // How often the third save of three, in which the power fails, leaves what it must not.
  int faults_with(Mistake mistake) {
    Careless careless(disk_, mistake);
    files_ = &careless;
    int faults = 0;
    for_each_crash(5, [&](std::size_t operation, bool returns, const auto& restart) {
      start_anew();
      save(1);
      save(2);
      save_until(operation, 3);
      restart();
      const int number = number_on_disk();
      faults += returns ? number != 3 : number != 2 && number != 3;
    });
    files_ = &disk_;
    return faults;
  }

  testing::TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "file";
  SimulatedDisk disk_;
  FileSystem* files_ = &disk_;
  std::map<std::string, int> numbers_;  // those of bytes that were read before
};

TEST_F(Crash, in_any_operation_leaves_the_file_before_or_the_new_one) {
  int before = 0, after = 0;
  for_each_crash(20, [&](std::size_t operation, bool returns, const auto& restart) {
    start_anew();
    save(1);
    ASSERT_EQ(save_until(operation, 2), returns);
    restart();
    const int number = number_on_disk();
    ASSERT_TRUE(number == 2 || (number == 1 && !returns)) << number << ", operation " << operation;
    (number == 1 ? before : after) += 1;
  });
  EXPECT_GT(before, 1000);
  EXPECT_GT(after, 100);
}

TEST_F(Crash, in_the_first_save_leaves_nothing_or_the_whole_file) {
  for_each_crash(20, [&](std::size_t operation, bool returns, const auto& restart) {
    start_anew();
    ASSERT_EQ(save_until(operation, 2), returns);
    restart();
    const int number = number_on_disk();
    ASSERT_TRUE(number == 2 || (number == none && !returns))
        << number << ", operation " << operation;
  });
}

TEST_F(Crash, after_crash_leaves_a_whole_file_and_no_save_that_had_returned_is_lost) {
  std::mt19937 random(7);
  const std::size_t operations = operations_of_a_save();
  int expected = 1, left_behind = 0;
  for (int number = 2; number < 3000; ++number) {
    const bool returns = save_until(random() % (operations + 5), number);
    if (returns) expected = number;
    if (!returns || random() % 4 == 0) {
      disk_.restart(static_cast<Data>(random() % 4), static_cast<Names>(random() % 4), random);
    }
    const int found = number_on_disk();
    ASSERT_TRUE(found == expected || (found == number && !returns)) << found << " of " << number;
    expected = found;
    left_behind += disk_.read(path_.string() + ".tmp").has_value();
  }
  EXPECT_GT(left_behind, 100);
}

TEST_F(Crash, is_survived_only_by_the_order_that_a_save_has) {
  EXPECT_EQ(faults_with(Mistake::none), 0);
  EXPECT_GT(faults_with(Mistake::no_sync), 0);
  EXPECT_GT(faults_with(Mistake::no_folder_sync), 0);
  EXPECT_GT(faults_with(Mistake::another_folder), 0);
}

}  // namespace crash_test
}  // namespace lockstep::checkpoint
