// A save and a load of which a system call fails, is interrupted, or does half of its work.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "checkpoint/training.hpp"
#include "lockstep/core/error.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3);

namespace {

// What becomes of the calls that have to do with a folder, or with a file in it.
struct Calls {
  enum Extent { one, all_from_there };

  std::string folder;
  std::size_t failing = SIZE_MAX;  // the number of the call that fails
  int error = 0;                   // 0: a write or read does half of its work
  Extent extent = one;
  std::vector<std::string> names;  // of all calls until now

  bool fails(const char* call, std::string_view path) {
    if (folder.empty() || !path.starts_with(folder)) return false;
    names.push_back(call + std::string(path.substr(folder.size())));
    const std::size_t number = names.size() - 1;
    return number == failing || (number > failing && extent == all_from_there);
  }
  bool fails(const char* call, int descriptor) {
    if (folder.empty()) return false;
    char path[4096];
    const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
    const ssize_t size = ::readlink(link.c_str(), path, sizeof path);
    return size > 0 && fails(call, std::string_view(path, static_cast<std::size_t>(size)));
  }
};

Calls calls;

template <class... Arguments>
long fail_or_call(bool fails, long number, Arguments... arguments) {
  if (!fails) return syscall(number, arguments...);
  errno = calls.error;
  return -1;
}

// Of pread and write.
template <class... Offset>
ssize_t transfer(const char* name, long number, int descriptor, std::intptr_t bytes, size_t size,
                 Offset... offset) {
  bool fails = calls.fails(name, descriptor);
  if (fails && calls.error == 0) {
    size = (size + 1) / 2;
    fails = false;
  }
  return fail_or_call(fails, number, descriptor, bytes, size, offset...);
}

}  // namespace

// In the place of the C library's, whose names programs may take.
extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
  va_end(arguments);
  return static_cast<int>(
      fail_or_call(calls.fails("open ", path), SYS_openat, AT_FDCWD, path, flags, mode));
}
ssize_t write(int descriptor, const void* bytes, size_t size) {
  return transfer("write ", SYS_write, descriptor, reinterpret_cast<std::intptr_t>(bytes), size);
}
ssize_t pread(int descriptor, void* bytes, size_t size, off_t offset) {
  return transfer("read ", SYS_pread64, descriptor, reinterpret_cast<std::intptr_t>(bytes), size,
                  offset);
}
int fsync(int descriptor) {
  return static_cast<int>(fail_or_call(calls.fails("fsync ", descriptor), SYS_fsync, descriptor));
}
int close(int descriptor) {
  const bool fails = calls.fails("close ", descriptor);
  const long result = syscall(SYS_close, descriptor);  // which a failing one has done as well
  if (!fails) return static_cast<int>(result);
  errno = calls.error;
  return -1;
}
int rename(const char* from, const char* to) noexcept {
  return static_cast<int>(
      fail_or_call(calls.fails("rename ", to), SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int unlink(const char* path) noexcept {
  return static_cast<int>(
      fail_or_call(calls.fails("unlink ", path), SYS_unlinkat, AT_FDCWD, path, 0));
}

}  // extern "C"

namespace lockstep::checkpoint {

using testing::momentum_sgd;
using testing::SharedFolder;
using testing::Training;
using testing::world;

class SystemCall : public ::testing::Test {
 protected:
  SystemCall() {
    if (world().rank() == 0) std::filesystem::create_directory(path_.parent_path());
    training_.run(1);
    undisturbed_.run(1);
    save(path_, world(), training_.items());
  }

  // The message of the error that all ranks throw alike; empty where they throw none.
  template <class Call>
  std::string error_of(std::size_t failing, int error, Calls::Extent extent, const Call& call) {
    calls = {.folder = path_.parent_path(),
             .failing = failing,
             .error = error,
             .extent = extent,
             .names = {}};
    std::string message;
    try {
      call();
    } catch (const CheckpointError& failure) {
      message = failure.what();
    }
    calls.folder.clear();
    std::string of_rank_0 = message;
    world().broadcast(of_rank_0);
    EXPECT_EQ(message, of_rank_0);
    return message;
  }
  std::string save_with(std::size_t failing, int error, Calls::Extent extent = Calls::one) {
    return error_of(failing, error, extent, [&] { save(path_, world(), training_.items()); });
  }
  std::string load_with(std::size_t failing, int error, Training& into) {
    return error_of(failing, error, Calls::one, [&] { load(path_, world(), into.items()); });
  }

  // The calls of rank 0, which does them all.
  std::vector<std::string> names_of_calls() const {
    if (world().rank() != 0) {
      EXPECT_TRUE(calls.names.empty());
    }
    std::string text;
    for (const std::string& name : calls.names) text += name + '\n';
    world().broadcast(text);
    std::vector<std::string> names;
    for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
      names.push_back(text.substr(begin, end - begin));
    }
    return names;
  }
  std::vector<std::string> calls_of_a_save() {
    EXPECT_EQ(save_with(SIZE_MAX, 0), "");
    return names_of_calls();
  }

  void expect_on_disk(const StateDict& state, bool whole_folder) const {
    if (world().rank() != 0) return;
    EXPECT_NO_THROW(EXPECT_TRUE(bit_equal(read_file(path_), state)));
    if (whole_folder) {
      EXPECT_FALSE(std::filesystem::exists(path_.string() + ".tmp"));
    }
  }
  // Goes on as if nothing had happened.
  void train_and_save() {
    training_.run(1);
    undisturbed_.run(1);
    ASSERT_TRUE(bit_equal(training_.state(), undisturbed_.state()));
    save(path_, world(), training_.items());
    expect_on_disk(training_.state(), true);
  }

  // Makes each call of a save fail.
  void expect_error_or_success(int error, Calls::Extent extent) {
    const std::vector<std::string> names = calls_of_a_save();
    const auto rename = static_cast<std::size_t>(
        std::find(names.begin(), names.end(), "rename /file") - names.begin());
    ASSERT_LT(rename, names.size());
    for (std::size_t i = 0; i < names.size(); ++i) {
      SCOPED_TRACE(names[i] + ", call " + std::to_string(i) + ": " + std::strerror(error));
      const StateDict before = training_.state();
      training_.run(1);
      undisturbed_.run(1);
      const bool harmless = names[i].starts_with("close") && (extent == Calls::one || i > rename);
      const std::string message = save_with(i, error, extent);
      if (harmless) {
        EXPECT_EQ(message, "");
      } else {
        for (const std::string& part : std::vector<std::string>{"cannot ", path_.parent_path(),
                                                                std::strerror(error), "(rank 0)"}) {
          EXPECT_NE(message.find(part), message.npos) << message;
        }
      }
      expect_on_disk(i > rename || harmless ? training_.state() : before, extent == Calls::one);
      train_and_save();
    }
  }
  // Makes each call of a save do less than it was asked for.
  void expect_success(int error, bool (*concerns)(const std::string& call)) {
    const std::vector<std::string> names = calls_of_a_save();
    ASSERT_TRUE(std::any_of(names.begin(), names.end(), concerns));
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!concerns(names[i])) continue;
      training_.run(1);
      undisturbed_.run(1);
      EXPECT_EQ(save_with(i, error), "") << names[i] << ", call " << i;
      expect_on_disk(training_.state(), true);
      train_and_save();
    }
  }

  SharedFolder folder_;
  const std::filesystem::path path_ = std::filesystem::canonical(folder_ / "") / "run/file";
  Training training_{world(), momentum_sgd()}, undisturbed_{world(), momentum_sgd()};
};

TEST_F(SystemCall, is_seen_here_whenever_a_save_makes_one) {
  std::vector<std::string> names = calls_of_a_save();
  const auto first_write = std::find(names.begin(), names.end(), "write /file.tmp");
  const auto writes = std::count(names.begin(), names.end(), "write /file.tmp");
  ASSERT_GE(writes, 3);
  names.erase(first_write + 1, first_write + writes);
  EXPECT_EQ(names, (std::vector<std::string>{"open /file.tmp", "write /file.tmp", "fsync /file.tmp",
                                             "close /file.tmp", "rename /file", "open ", "fsync ",
                                             "close "}));
}

TEST_F(SystemCall, that_fails_is_an_error_of_all_ranks_and_training_goes_on) {
  expect_error_or_success(EIO, Calls::one);
  expect_error_or_success(ENOSPC, Calls::one);
}

TEST_F(SystemCall, that_fails_with_all_that_follow_is_the_same) {
  expect_error_or_success(EIO, Calls::all_from_there);
  expect_error_or_success(ENOSPC, Calls::all_from_there);
}

TEST_F(SystemCall, that_a_signal_interrupts_is_repeated) {
  expect_success(EINTR, [](const std::string& call) { return !call.starts_with("rename"); });
}

TEST_F(SystemCall, that_writes_a_part_is_continued) {
  expect_success(0, [](const std::string& call) { return call.starts_with("write"); });
}

TEST_F(SystemCall, of_a_folder_that_cannot_be_synced_is_tolerated_and_that_of_a_file_is_not) {
  const std::vector<std::string> names = calls_of_a_save();
  const auto number = [&](const char* name) {
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
  };
  EXPECT_EQ(save_with(number("fsync "), EINVAL), "");
  EXPECT_NE(save_with(number("fsync /file.tmp"), EINVAL), "");
}

TEST_F(SystemCall, that_a_read_only_file_system_refuses_is_an_error_that_says_so) {
  const StateDict before = training_.state();
  training_.run(1);
  undisturbed_.run(1);
  const std::string message = save_with(0, EROFS);
  EXPECT_NE(message.find("cannot create '" + path_.string() + ".tmp': Read-only file system"),
            message.npos)
      << message;
  expect_on_disk(before, true);
  train_and_save();
}

TEST_F(SystemCall, of_a_load_that_fails_is_an_error_of_all_ranks_that_changes_nothing) {
  Training loaded(world(), momentum_sgd(), 2);
  loaded.run(3);
  const StateDict before = loaded.state();
  EXPECT_EQ(load_with(SIZE_MAX, 0, loaded), "");
  const std::vector<std::string> names = names_of_calls();
  ASSERT_GT(std::count(names.begin(), names.end(), "read /file"), 3);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] != "read /file") continue;
    for (const Item& item : loaded.items()) item.object->restore(before.at(item.name).as_dict());
    const std::string message = load_with(i, EIO, loaded);
    EXPECT_NE(message.find(path_.string() + "' cannot be used: reading "), message.npos) << message;
    EXPECT_TRUE(bit_equal(loaded.state(), before));
    for (const int error : {EINTR, 0}) {
      EXPECT_EQ(load_with(i, error, loaded), "");
      EXPECT_TRUE(bit_equal(loaded.state(), training_.state()));
    }
  }
}

}  // namespace lockstep::checkpoint
