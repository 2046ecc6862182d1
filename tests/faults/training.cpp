// A training of which one rank fails, for scripts/faults: FOLDER FAULT OPERATION RANK. All ranks train and save
// FOLDER/last.lockstep. Then they train again, save or load, and meanwhile the rank does what FAULT says. "check" only loads.
#include <fcntl.h>
#include <mpi.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "lockstep/autograd/losses.hpp"
#include "lockstep/autograd/operations.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/comm/environment.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/data/data_loader.hpp"
#include "lockstep/nn/layers.hpp"
#include "lockstep/optim/adam.hpp"
#include "lockstep/optim/named_optimizer.hpp"
#include "lockstep/optim/sgd.hpp"
#include "lockstep/parallel/data_parallel.hpp"
#include "lockstep/parallel/replica_check.hpp"

[[gnu::noinline]] void loop_for_ever() {
  const volatile bool forever = true;
  while (forever) {
  }
}

[[gnu::noinline]] void write_to_null() {
  volatile int* const null = nullptr;
  *null = 1;
}

namespace {

using namespace lockstep;

/// What a rank does that no other does.
struct Fault {
  std::string name, operation;
  std::filesystem::path folder;
  bool here = false;

  bool is(const char* fault) const { return here && name == fault; }
  bool is_in(const char* where) const { return here && operation == where; }

  void note() const {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    std::ofstream(folder / "fault") << std::chrono::duration<double>(now).count();
  }

  /// For those that are not an event.
  void begin() const {
    if (here && (name.starts_with("other-") || name == "nan")) note();
  }

  /// Does it, in the midst of the operation, unless it is something else.
  void happen() const {
    if (!here) return;
    note();
    if (name == "throws") throw std::runtime_error("a fault of this rank");
    if (name == "killed") raise(SIGKILL);
    if (name == "segfaults") write_to_null();
    if (name == "out-of-memory") ::operator delete(::operator new (std::size_t{1} << 60));
    if (name == "loops") loop_for_ever();
    if (name == "paused") raise(SIGSTOP);
    if (name == "cut-off") sleep(1);  // The driver cuts it off meanwhile.
  }
};

/// A part of the state, which the operations ask for.
class Witness : public Stateful {
 public:
  explicit Witness(const Fault& fault) : fault_(fault) {}

  StateDict state_dict() const override {
    if (fault_.is_in("save")) fault_.happen();
    return {{"one", std::int64_t{1}}};
  }
  void check_restore(const StateDict&) const override {
    if (fault_.is_in("load")) fault_.happen();
  }
  void restore(const StateDict&) override {}

 private:
  const Fault& fault_;
};

NamedOptimizer optimizer_of(const Fault& fault, nn::Module& model) {
  if (fault.is("other-optimizer")) return {model.named_parameters(), optim::Adam({.lr = 0.01})};
  return {model.named_parameters(), optim::SGD({.lr = 0.1, .momentum = 0.9})};
}

/// A model, what trains it, and their state.
struct Training {
  Training(const Fault& fault, const Communicator& ranks)
      : fault(fault),
        ranks(ranks),
        model{nn::Linear(8, fault.is("other-model") ? 17 : 16, {.dtype = dtype()}), nn::Tanh(),
              nn::Linear(fault.is("other-model") ? 17 : 16, 1, {.dtype = dtype()})},
        optimizer(optimizer_of(fault, model)),
        witness(fault),
        items{{"model", model}, {"optimizer", optimizer}, {"witness", witness}} {
    model.initialize(1);
    optimizer.set_clipping({.non_finite = optim::NonFinite::error});
  }

  DType dtype() const { return fault.is("other-dtype") ? DType::f64 : DType::f32; }

  void step(DataParallel& replica, bool fails) {
    Tensor x = Tensor::full({4, 8}, 0.5, dtype()), y = Tensor::full({4, 1}, 1.0, dtype());
    if (fails && fault.is("nan"))
      x = Tensor::full({4, 8}, std::numeric_limits<double>::quiet_NaN(), dtype());
    optimizer.zero_grad();
    replica.backward(data::Batch{x, y}, [&](const data::Batch& part) {
      if (fails) fault.happen();
      return mean_squared_error(model(part.inputs), part.targets);
    });
    optimizer.step();
  }

  const Fault& fault;
  const Communicator& ranks;
  nn::Sequential model;
  NamedOptimizer optimizer;
  Witness witness;
  std::vector<checkpoint::Item> items;
};

const Fault no_fault;

// The status of main.
int train(const Fault& fault, const Communicator& ranks) {
  fault.begin();
  Training training(fault, ranks);
  DataParallel replica(training.model, ranks);
  ReplicaCheck check(ranks, {{"model", training.model}, {"optimizer", training.optimizer}},
                     {.every = 2});
  for (int step = 1; step <= 6; ++step) {
    const bool fails = step == 4;
    if (fails && fault.is("other-steps")) break;
    if (fails && fault.is("other-order")) ranks.barrier();
    if (fails && fault.is("returns-0")) return fault.note(), 0;
    if (fails && fault.is("returns-1")) return fault.note(), 1;
    training.step(replica, fails);
    check.step();
  }
  ranks.barrier();
  return 0;
}

int save_or_load(const Fault& fault, const Communicator& ranks) {
  fault.begin();
  Training training(fault, ranks);
  const auto file = fault.folder / "last.lockstep";
  const auto save = [&] { checkpoint::save(file, ranks, training.items); };
  const auto load = [&] { checkpoint::load(file, ranks, training.items); };
  if (fault.is("returns-0")) return fault.note(), 0;
  if (fault.is("returns-1")) return fault.note(), 1;
  if (fault.is("nan"))
    training.model.named_parameters().front().parameter.mutable_value().span<float>()[0] =
        std::numeric_limits<float>::quiet_NaN();
  const bool saves = fault.operation == "save";
  if (fault.is("other-order")) saves ? load() : save();
  if (fault.is("other-steps")) {
    for (auto [name, parameter] : training.model.named_parameters()) parameter.mutable_grad();
    training.optimizer.step();
  }
  saves ? save() : load();
  ranks.barrier();
  return 0;
}

int run(int argc, char** argv) {
  if (argc != 5) throw OptionError("expected FOLDER FAULT train|save|load|check RANK");
  const Communicator ranks(MPI_COMM_WORLD);
  const std::filesystem::path folder = argv[1];
  const Fault fault{.name = argv[2],
                    .operation = argv[3],
                    .folder = folder,
                    .here = std::stoi(argv[4]) == ranks.rank()};
  if (fault.operation == "check") {
    Training training(no_fault, ranks);
    checkpoint::load(folder / "last.lockstep", ranks, training.items);
    return 0;
  }
  // Until this process has ended, the driver gets no lock of this file.
  const int file = open((folder / ("rank-" + std::to_string(ranks.rank()))).c_str(),
                        O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (flock(file, LOCK_EX) != 0) throw Error("no lock");
  {
    Training training(no_fault, ranks);
    DataParallel replica(training.model, ranks);
    for (int step = 1; step <= 3; ++step) training.step(replica, false);
    checkpoint::save(folder / "last.lockstep", ranks, training.items);
  }
  return fault.operation == "train" ? train(fault, ranks) : save_or_load(fault, ranks);
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] { return run(argc, argv); });
}
