// Continues from the checkpoint PATH where there is one, and saves it SAVES times:
// save_fixture PATH SAVES [NUMBERS]. For order_test.py and scripts/torture, which kill the process that each rank
// says it is.
#include <mpi.h>

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>

#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/environment.hpp"
#include "lockstep/core/error.hpp"

namespace {

// Numbers that all are the number of the save, so that a mixture of two would be seen.
class Numbers : public lockstep::Stateful {
 public:
  explicit Numbers(std::int64_t count)
      : first_(lockstep::Tensor::zeros({count}, lockstep::DType::i64)),
        second_(lockstep::Tensor::zeros({3}, lockstep::DType::i64)) {}

  std::int64_t save() const { return first_.span<std::int64_t>()[0]; }
  void advance() {
    for (lockstep::Tensor* tensor : {&first_, &second_}) {
      for (std::int64_t& number : tensor->span<std::int64_t>()) ++number;
    }
  }

  lockstep::StateDict state_dict() const override {
    return {{"first", first_}, {"save", save()}, {"second", second_}};
  }
  void check_restore(const lockstep::StateDict&) const override {}
  void restore(const lockstep::StateDict& source) override {
    const std::int64_t save = source.at("save").as_int();
    for (const char* name : {"first", "second"}) {
      for (const std::int64_t number : source.at(name).as_tensor().span<std::int64_t>()) {
        if (number != save) throw lockstep::DataError("states are mixed");
      }
    }
    first_ = source.at("first").as_tensor().clone();
    second_ = source.at("second").as_tensor().clone();
  }

 private:
  lockstep::Tensor first_, second_;
};

int run(const std::string& path, int saves, std::int64_t count) {
  const lockstep::Communicator world(MPI_COMM_WORLD);
  const auto say = [&](const char* what, std::int64_t save) {
    if (world.rank() != 0) return;
    std::printf("%s %lld\n", what, static_cast<long long>(save));
    std::fflush(stdout);
  };
  std::printf("process %d\n", getpid());
  std::fflush(stdout);
  Numbers numbers(count);
  const std::vector<lockstep::checkpoint::Item> items{{"numbers", numbers}};
  bool is_there = false;
  world.agree([&] { is_there = std::filesystem::exists(path); });
  if (is_there) lockstep::checkpoint::load(path, world, items);
  say("loaded", numbers.save());
  for (int i = 0; i < saves; ++i) {
    numbers.advance();
    say("saving", numbers.save());
    lockstep::checkpoint::save(path, world, items);
    say("saved", numbers.save());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const lockstep::mpi::Environment environment(argc, argv);
  return environment.run([&] {
    if (argc < 3) throw lockstep::OptionError("expected PATH SAVES [NUMBERS]");
    return run(argv[1], std::stoi(argv[2]), argc > 3 ? std::stoll(argv[3]) : 1000);
  });
}
