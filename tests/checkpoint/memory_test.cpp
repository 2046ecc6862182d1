// A save and a load in which one rank runs out of memory.
#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/format.hpp"
#include "checkpoint/managed_folder.hpp"
#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"
#include "testing/allocation_counter.hpp"
#include "testing/log.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3);

namespace lockstep::checkpoint {
namespace memory_test {

using testing::allocations_left;
using testing::momentum_sgd;
using testing::read_bytes;
using testing::SharedFolder;
using testing::Training;
using testing::world;
using testing::write_bytes;

// Numbers of this rank, by themselves or as its part of a tensor.
class Numbers : public Stateful {
 public:
  explicit Numbers(bool is_part) : is_part_(is_part) {}

  StateDict state_dict() const override {
    if (!is_part_) return {{"numbers", numbers_}};
    const std::int64_t size = numbers_.size();
    return {{"numbers", TensorPart{.shape = {size * world().size()},
                                   .begin = size * world().rank(),
                                   .numbers = numbers_}}};
  }
  void check_restore(const StateDict& source) const override { numbers_in(source); }
  void restore(const StateDict& source) override { numbers_.copy_from(numbers_in(source)); }

 private:
  const Tensor& numbers_in(const StateDict& source) const {
    const StateValue& value = source.at("numbers");
    return is_part_ ? value.as_part().numbers : value.as_tensor();
  }

  bool is_part_;
  Tensor numbers_ = Tensor::full({5}, world().rank() + 1);
};

class Memory : public ::testing::Test {
 protected:
  // Lets one rank have no memory for one allocation of `call`, for each rank and allocation. All ranks are
  // to throw the same error then, unless that memory can be done without. `check` gets its message.
  template <class Prepare, class Call, class Check>
  void for_each_failure(const Prepare& prepare, const Call& call, const Check& check) {
    // Calls of several ranks take longer.
    const std::size_t stride = world().size() == 1 ? 1 : 11;
    for (int culprit = 0; culprit < world().size(); ++culprit) {
      std::size_t failures = 0;
      for (std::size_t number = 0;; number += stride) {
        prepare();
        std::string message;
        if (world().rank() == culprit) allocations_left() = number;
        try {
          call();
        } catch (const Error& error) {
          message = error.what();
        }
        std::int64_t failed = allocations_left() > number && world().rank() == culprit;
        allocations_left() = SIZE_MAX;
        failed = world().all_reduce(failed, ReduceOp::max);
        SCOPED_TRACE("allocation " + std::to_string(number) + " of rank " +
                     std::to_string(culprit));
        std::string of_rank_0 = message;
        world().broadcast(of_rank_0);
        EXPECT_EQ(message, of_rank_0);
        if (!message.empty()) {
          const std::string reason = "out of memory (rank " + std::to_string(culprit) + ")";
          EXPECT_NE(message.find(reason), message.npos) << message;
          ++failures;
        }
        check(message);
        if (failed == 0) break;
        if (world().all_reduce<std::int64_t>(HasFailure() ? 1 : 0) > 0) return;
      }
      EXPECT_GT(failures, 50 / stride) << culprit;
    }
  }

  std::vector<Item> items_of(Training& training) {
    std::vector<Item> items = training.items();
    items.emplace_back("part", part_);
    items.emplace_back("own", own_, ItemScope::each_rank);
    return items;
  }
  void restore(Training& training, const StateDict& state) {
    for (const Item& item : training.items()) item.object->restore(state.at(item.name).as_dict());
  }
  void write(const std::filesystem::path& path, const std::string& bytes) {
    world().barrier();
    if (world().rank() == 0) write_bytes(path, bytes);
    world().barrier();
  }
  void expect_names_the_file(const std::string& message) const {
    if (!message.empty()) {
      EXPECT_NE(message.find("the checkpoint '" + path_ + "'"), message.npos) << message;
    }
  }
  void expect_training_goes_on(const std::filesystem::path& path) {
    training_.run(1);
    undisturbed_.run(1);
    EXPECT_TRUE(bit_equal(training_.state(), undisturbed_.state()));
    save(path, world(), training_.items());
    EXPECT_TRUE(bit_equal(read_file(path), training_.state()));
  }

  SharedFolder folder_;
  const std::string path_ = folder_ / "file";
  Numbers part_{true}, own_{false};
  Training training_{world(), momentum_sgd()}, undisturbed_{world(), momentum_sgd()};
};

TEST_F(Memory, that_a_rank_lacks_in_a_save_is_an_error_of_all_that_leaves_the_file_of_before) {
  const std::vector<Item> items = items_of(training_);
  training_.run(1);
  save(path_, world(), items);
  const std::string before = read_bytes(path_);
  training_.run(1);
  undisturbed_.run(2);
  save(path_, world(), items);
  const std::string after = read_bytes(path_);
  const StateDict state = training_.state();
  int late = 0;
  for_each_failure([&] { write(path_, before); }, [&] { save(path_, world(), items); },
                   [&](const std::string& message) {
                     EXPECT_TRUE(bit_equal(training_.state(), state));
                     EXPECT_FALSE(std::filesystem::exists(path_ + ".tmp"));
                     expect_names_the_file(message);
                     const std::string found = read_bytes(path_);
                     if (message.empty()) {
                       EXPECT_EQ(found, after);
                     } else if (found != before) {
                       // When the folder was to be synced.
                       EXPECT_EQ(found, after);
                       ++late;
                     }
                     world().barrier();
                   });
  EXPECT_LE(late, 3);
  expect_training_goes_on(folder_ / "next");
}

TEST_F(Memory,
       that_a_rank_lacks_in_a_load_is_an_error_of_all_and_changes_nothing_before_the_last_step) {
  training_.run(2);
  undisturbed_.run(2);
  const std::vector<Item> saved = items_of(training_);
  save(path_, world(), saved);
  Training loaded(world(), momentum_sgd(), 2);
  loaded.run(3);
  const StateDict before = loaded.state();
  const std::vector<Item> items = items_of(loaded);
  int in_part = 0, unchanged = 0;
  for_each_failure([&] { restore(loaded, before); }, [&] { load(path_, world(), items); },
                   [&](const std::string& message) {
                     expect_names_the_file(message);
                     if (message.find("only in part") != message.npos) {
                       ++in_part;
                       load(path_, world(), items);
                     }
                     const bool is_new =
                         message.empty() || message.find("only in part") != message.npos;
                     EXPECT_TRUE(bit_equal(loaded.state(), is_new ? training_.state() : before));
                     unchanged += !is_new;
                   });
  EXPECT_GT(in_part, 0);
  EXPECT_GT(unchanged, 10 * world().size());
  expect_training_goes_on(folder_ / "next");
}

TEST_F(Memory, that_a_rank_lacks_in_a_manager_loses_no_checkpoint) {
  CheckpointManager manager(folder_ / "run", world(), training_.items(),
                            {.keep_last = 1, .keep_best = 1});
  training_.run(1);
  undisturbed_.run(1);
  manager.save(1, 0.5);
  const testing::Log log;
  std::int64_t step = 1;
  for_each_failure([&] { ++step; }, [&] { manager.save(step, 1.0); },
                   [&](const std::string& message) {
                     EXPECT_TRUE(std::filesystem::exists(manager.path(1)));
                     const auto latest = manager.load_latest();
                     EXPECT_TRUE(latest == step || (latest == step - 1 && !message.empty()));
                     step = latest.value_or(0);
                   });
  EXPECT_GT(step, 2);
  const StateDict state = training_.state();
  for_each_failure([] {}, [&] { manager.load_latest(); },
                   [&](const std::string&) {
                     EXPECT_EQ(manager.newest(), step);
                     EXPECT_EQ(manager.load_latest(), step);
                     EXPECT_TRUE(bit_equal(training_.state(), state));
                   });
  // No file was taken for damaged. What was shared can be in ordinary memory.
  for (const std::string& line : log.lines()) {
    EXPECT_NE(line.find("no memory can be shared"), line.npos) << line;
  }
  training_.run(1);
  undisturbed_.run(1);
  EXPECT_TRUE(bit_equal(training_.state(), undisturbed_.state()));
  manager.save(++step);
  EXPECT_EQ(manager.load_latest(), step);
}

// A stream that cannot grow says nothing by itself, and its last item is the one that nobody asks for.
TEST_F(Memory, that_the_header_of_a_file_lacks_never_makes_it_shorter) {
  for (std::size_t size = 0; size < 600; ++size) {
    const Header header = make_header(flatten({{std::string(size, 'n'), 1}}));
    const std::string text = encode(header);
    for (std::size_t number = 0;; ++number) {
      allocations_left() = number;
      std::optional<std::string> written;
      try {
        written = encode(header);
      } catch (const std::bad_alloc&) {
      }
      const bool failed = allocations_left() > number;
      allocations_left() = SIZE_MAX;
      ASSERT_EQ(written.value_or(text), text) << size << ", allocation " << number;
      if (!failed) break;
    }
  }
}

}  // namespace memory_test
}  // namespace lockstep::checkpoint
