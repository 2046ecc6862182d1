// Loads of so much data that the ranks of a node read them together.

#include <filesystem>
#include <fstream>
#include <string>

#include "checkpoint/training.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3);

namespace lockstep::checkpoint {
namespace large_load_test {

using testing::SharedFolder;
using testing::throws;
using testing::world;

// 36 MB, of which no two numbers near each other are the same.
struct Large : Stateful {
  explicit Large(float first) {
    for (const char* name : {"a", "b", "c"}) {
      Tensor tensor = Tensor::empty({3'000'001});
      for (float& number : tensor.span<float>()) number = first++;
      tensors[name] = tensor;
    }
  }

  StateDict state_dict() const override { return tensors; }
  void check_restore(const StateDict&) const override {}
  void restore(const StateDict& source) override { tensors = source.clone(); }

  StateDict tensors;
};

class LargeLoad : public ::testing::Test {
 protected:
  void SetUp() override { save(path_, world(), {{"large", saved_}}); }

  SharedFolder folder_;
  const std::filesystem::path path_ = std::filesystem::canonical(folder_ / "") / "file";
  Large saved_{1}, loaded_{-7};
};

TEST_F(LargeLoad, gives_each_rank_what_was_saved) {
  load(path_, world(), {{"large", loaded_}});
  EXPECT_TRUE(bit_equal(loaded_.tensors, saved_.tensors));
}

TEST_F(LargeLoad, of_a_damaged_file_names_the_tensor_on_all_ranks_and_changes_nothing) {
  const StateDict before = loaded_.tensors.clone();
  const auto bytes = static_cast<std::streamoff>(std::filesystem::file_size(path_));
  for (const auto& [at, name] : {std::pair(bytes / 2, "b"), std::pair(bytes - 100, "c")}) {
    world().barrier();
    if (world().rank() == 0) {
      std::fstream(path_, std::ios::in | std::ios::out | std::ios::binary).seekp(at).put('\x77');
    }
    EXPECT_TRUE(throws<CheckpointError>(
        [&] {
          load(path_, world(), {{"large", loaded_}});
        },
        path_.string(), std::string("checksum of 'large/") + name + "' is wrong"));
    EXPECT_TRUE(bit_equal(loaded_.tensors, before));
    save(path_, world(), {{"large", saved_}});
  }
}

// What other ranks find by this path must not get into the state.
TEST_F(LargeLoad, reads_no_other_file_of_the_same_path) {
  const std::filesystem::path own = path_.parent_path() / ("rank" + std::to_string(world().rank()));
  std::filesystem::create_directory(own);
  const std::filesystem::path before = std::filesystem::current_path();
  write_file(own / "file", {{"large", Large(static_cast<float>(world().rank())).tensors}});
  std::filesystem::current_path(own);
  load("file", world(), {{"large", loaded_}});
  std::filesystem::current_path(before);
  EXPECT_TRUE(bit_equal(loaded_.tensors, Large(0).tensors));
}

}  // namespace large_load_test
}  // namespace lockstep::checkpoint
