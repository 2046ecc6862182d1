// Folders as a manager may find them: damaged, in use, in the way, gone.
#include <unistd.h>

#include <fstream>

#include "checkpoint/managed_folder.hpp"
#include "testing/log.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep {
namespace managed_folder_test {

using testing::read_bytes;
using testing::throws;
using testing::world;
using testing::write_bytes;

class Folder : public testing::ManagedFolder {
 protected:
  void damage(std::int64_t step, std::size_t at) {
    change([&] {
      std::string bytes = read_bytes(path(file(step)));
      bytes[at] = static_cast<char>(bytes[at] ^ 1);
      write_bytes(path(file(step)), bytes);
    });
  }
  auto constructs() {
    return [this] { CheckpointManager(path(), world(), items()); };
  }
};

TEST_F(Folder, whose_newest_file_is_damaged_gives_the_one_before_and_says_so) {
  save_all({1});
  const std::size_t size = read_bytes(path(file(1))).size();
  const std::vector<std::pair<std::string, std::function<std::string(std::string)>>> damages{
      {"does not begin as a checkpoint",
       [](std::string s) {
         s[0] = 'l';
         return s;
       }},
      {"version 2",
       [](std::string s) {
         s[8] = 2;
         return s;
       }},
      {"reserved",
       [](std::string s) {
         s[12] = 1;
         return s;
       }},
      {"header claims",
       [](std::string s) {
         s[22] = 1;
         return s;
       }},
      {"checksum of its header",
       [](std::string s) {
         s[24] ^= 1;
         return s;
       }},
      {"checksum of its header",
       [](std::string s) {
         s[40] ^= 1;
         return s;
       }},
      {"checksum of 'model/0.weight'", nullptr},
      {"bytes",
       [&](std::string s) {
         s[s.size() - 16] ^= 1;
         return s;
       }},
      {"cut off", [](std::string s) { return s.substr(0, s.size() - 1); }},
      {"follows its end", [](std::string s) { return s + '\0'; }},
      {"only 0 bytes", [](std::string) { return std::string(); }}};
  ASSERT_GT(size, 100u);
  nn::Sequential model{nn::Linear(3, 2)};
  model.initialize(1);
  std::vector<checkpoint::Item> all = items();
  all.emplace_back("model", model);
  for (const auto& [what, harm_it] : damages) {
    const auto& harm = harm_it;  // which a lambda can have
    change([&] { std::filesystem::remove_all(path()); });
    {
      CheckpointManager manager(path(), world(), all);
      for (const std::int64_t step : {10, 20, 30}) save(manager, step);
    }
    change([&] {
      std::string bytes = read_bytes(path(file(30)));
      if (harm) {
        bytes = harm(bytes);
      } else {
        const Tensor& weight = model.at<nn::Linear>(0).weight.value();
        const std::size_t at =
            bytes.find(std::string(static_cast<const char*>(weight.raw()), weight.bytes()));
        bytes[at + 5] ^= 1;
      }
      write_bytes(path(file(30)), bytes);
    });
    const testing::Log log;
    CheckpointManager manager(path(), world(), all, {.keep_last = 1});
    EXPECT_EQ(manager.load_latest(), 20) << what;
    EXPECT_EQ(number_, 20);
    EXPECT_EQ(files(), (std::vector<std::string>{file(10), file(20), file(30) + ".damaged"}));
    ASSERT_EQ(log.lines().size(), world().rank() == 0 ? 1u : 0u) << what;
    for (const std::string& line : log.lines()) {
      for (const std::string& part :
           {std::string("warning: "), path(file(30)).string(), what, file(30) + ".damaged"}) {
        EXPECT_NE(line.find(part), std::string::npos) << "no '" << part << "' in: " << line;
      }
    }
    save(manager, 25);  // the run goes on where it was
    EXPECT_EQ(files(), (std::vector<std::string>{file(25), file(30) + ".damaged"}));
    EXPECT_EQ(manager.load_latest(), 25);
  }
}

TEST_F(Folder, with_several_damaged_files_gives_the_newest_sound_one) {
  save_all({1, 2, 3, 4});
  damage(4, 30);
  change([&] { write_bytes(path(file(3)), ""); });
  change([&] {
    std::filesystem::remove(path(file(4)));
    std::filesystem::create_directory(path(file(4)));
  });
  const testing::Log log;
  CheckpointManager manager(path(), world(), items());
  EXPECT_EQ(manager.load_latest(), 2);
  EXPECT_EQ(number_, 2);
  EXPECT_EQ(log.lines().size(), world().rank() == 0 ? 2u : 0u);
}

TEST_F(Folder, all_of_whose_files_are_damaged_is_an_error_and_stays_as_it_is) {
  save_all({1, 2});
  damage(1, 30);
  damage(2, 0);
  const testing::Log log;
  CheckpointManager manager(path(), world(), items());
  number_ = 77;
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(throws<CheckpointError>([&] { manager.load_latest(); }, "none of the checkpoints",
                                        path().string(), file(1), "checksum of its header", file(2),
                                        "does not begin"));
  }
  EXPECT_EQ(number_, 77);
  EXPECT_EQ(files(), files_of({1, 2}));
  EXPECT_TRUE(throws<StateError>([&] { manager.save(3); }, "step 2"));
}

TEST_F(Folder, a_damaged_best_is_not_kept_and_the_next_best_is_loaded) {
  const CheckpointManagerOptions options{.keep_last = 1, .keep_best = 2};
  {
    CheckpointManager manager(path(), world(), items(), options);
    for (const std::int64_t step : {1, 2, 3, 4}) save(manager, step, static_cast<double>(step));
    EXPECT_EQ(files(), files_of({1, 2, 4}));
  }
  damage(1, 40);
  const testing::Log log;
  CheckpointManager manager(path(), world(), items(), options);
  EXPECT_EQ(manager.load_best(), 2);
  EXPECT_EQ(files(), (std::vector<std::string>{file(1) + ".damaged", file(2), file(4)}));
  EXPECT_EQ(manager.load_latest(), 4);
  save(manager, 5, 3);
  EXPECT_EQ(files(), (std::vector<std::string>{file(1) + ".damaged", file(2), file(5)}));
}

TEST_F(Folder, a_sound_file_that_does_not_fit_is_an_error) {
  save_all({1, 2});
  double other = 5;
  Scalars others({{"another", &other}});
  const testing::Log log;
  CheckpointManager manager(path(), world(), {{"state", others}});
  EXPECT_TRUE(
      throws<CheckpointError>([&] { manager.load_latest(); }, file(2), "does not fit", "another"));
  EXPECT_EQ(other, 5);
  EXPECT_EQ(files(), files_of({1, 2}));
  EXPECT_TRUE(log.lines().empty());
}

TEST_F(Folder, a_file_of_another_step_than_its_name_says_is_an_error) {
  save_all({1, 2});
  change([&] { std::filesystem::copy(path(file(1)), path(file(3))); });
  CheckpointManager manager(path(), world(), items());
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.load_latest(); }, file(3), "of step 1",
                                      "not of step 3"));
  EXPECT_EQ(number_, -1);
}

TEST_F(Folder, keeps_files_that_are_no_checkpoints_and_loses_what_a_crash_has_left) {
  save_all({1});
  const std::vector<std::string> others{"notes.txt",
                                        "notes.txt.tmp",
                                        "step-12.lockstep",
                                        "step-0000000x1.lockstep",
                                        "step--00000001.lockstep",
                                        "step-000000009.lockstep.old",
                                        "step-000000009"};
  change([&] {
    for (const std::string& name : others) write_bytes(path(name), "x");
    write_bytes(path(file(2) + ".tmp"), "half");
    write_bytes(path(file(1) + ".tmp"), "");
  });
  std::vector<std::string> expected = others;
  expected.push_back(file(1));
  const testing::Log log;
  CheckpointManager manager(path(), world(), items(), {.keep_last = 1});
  EXPECT_EQ(manager.load_latest(), 1);
  EXPECT_TRUE(log.lines().empty());
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(files(), expected);
}

TEST_F(Folder, is_made_with_all_above_it) {
  CheckpointManager manager(path("a/b/c"), world(), items());
  save(manager, 1);
  EXPECT_TRUE(std::filesystem::exists(path("a/b/c") / file(1)));
  CheckpointManager another(path("d/e/"), world(), items());
  EXPECT_TRUE(std::filesystem::is_directory(path("d/e")));
}

TEST_F(Folder, that_cannot_be_made_or_written_is_an_error) {
  change([&] {
    std::filesystem::create_directory(path());
    write_bytes(path("file"), "precious");
  });
  const auto refuses = [&](const std::filesystem::path& folder, const std::string& message) {
    return throws<CheckpointError>([&] { CheckpointManager(folder, world(), items()); }, message);
  };
  const std::string file = path("file").string();
  EXPECT_TRUE(refuses(file, "'" + file + "' is no folder"));
  EXPECT_TRUE(refuses(path("file/below"), "'" + file + "' is no folder"));
  EXPECT_TRUE(refuses("/proc/self", "cannot create '/proc/self/.lock': "));
  EXPECT_TRUE(refuses("/proc/lockstep", "cannot create the folder '/proc/lockstep': "));
  EXPECT_EQ(read_bytes(path("file")), "precious");
}

TEST_F(Folder, that_was_removed_is_an_error_of_the_next_save) {
  CheckpointManager manager(path(), world(), items());
  save(manager, 1);
  change([&] { std::filesystem::remove_all(path()); });
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.save(2); }, path().string(), "removed"));
  // Where another has been put in its place, it is that of others.
  change([&] { std::filesystem::create_directory(path()); });
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.save(2); }, "removed or replaced"));
  CheckpointManager another(path(), world(), items());
  EXPECT_TRUE(throws<CheckpointError>([&] { manager.save(2); }, "removed or replaced"));
  EXPECT_TRUE(files().empty());
}

TEST_F(Folder, whose_files_were_removed_gives_what_is_left) {
  save_all({1, 2});
  CheckpointManager manager(path(), world(), items());
  change([&] { std::filesystem::remove(path(file(2))); });
  EXPECT_EQ(manager.load_latest(), 1);
  save(manager, 2);
  change([&] { std::filesystem::remove(path(file(1))); });
  for (const std::int64_t step : {3, 4, 5, 6}) save(manager, step);
  EXPECT_EQ(files(), files_of({4, 5, 6}));
}

TEST_F(Folder, is_not_shared_by_managers_of_one_process) {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  std::string host = name;
  world().broadcast(host);
  std::int64_t process = getpid();
  world().broadcast(std::span(&process, 1));
  {
    CheckpointManager manager(path(), world(), items());
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(throws<CheckpointError>(constructs(), path().string(), "is in use by",
                                          "process " + std::to_string(process), host, "since 20",
                                          "UTC"));
    }
    save(manager, 1);  // it has lost nothing
    CheckpointManager other(path("other"), world(), items());
    CheckpointManager careless(path(), world(), items(), {.lock = false});
  }
  constructs()();
}

TEST_F(Folder, is_not_shared_by_processes) {
  if (world().size() == 1) return;
  const Communicator self(MPI_COMM_SELF);
  std::optional<CheckpointManager> first;
  const int owner = world().size() - 1;
  if (world().rank() == owner) first.emplace(path(), self, items());
  std::int64_t process = getpid();
  world().broadcast(std::span(&process, 1), owner);
  if (world().rank() != owner) {
    EXPECT_TRUE(throws<CheckpointError>([&] { CheckpointManager(path(), self, items()); },
                                        "is in use by process " + std::to_string(process)));
  }
  world().barrier();
  first.reset();
  world().barrier();
  if (world().rank() == 0) first.emplace(path(), self, items());
  world().barrier();
}

}  // namespace managed_folder_test
}  // namespace lockstep
