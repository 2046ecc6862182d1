// Saves and loads of a model and its optimizer on all ranks: checkpoint FOLDER EXTENT.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <lockstep/lockstep.hpp>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "program.hpp"

using namespace lockstep;

namespace {

using Path = std::filesystem::path;

/// A folder of this program in another one, with room for files of that many bytes.
class Scratch {
 public:
  Scratch(const Communicator& ranks, const Path& parent, std::uintmax_t bytes) {
    std::string name;
    ranks.agree([&] {
      if (ranks.rank() != 0) return;
      const std::uintmax_t free = std::filesystem::space(parent).available;
      if (free < bytes) {
        throw StateError(
            fmt::format("expected {} bytes free in '{}', found {}", bytes, parent.string(), free));
      }
      name = (parent / fmt::format("checkpoint-{}", ::getpid())).string();
      std::filesystem::create_directory(name);
    });
    is_owner_ = ranks.rank() == 0;
    ranks.broadcast(name);
    folder_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    if (is_owner_) std::filesystem::remove_all(folder_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  Path file(const std::string& name) const { return folder_ / name; }

 private:
  Path folder_;
  bool is_owner_ = false;
};

/// `count` parameters of `size` numbers each, and no forward.
class Layers : public nn::Module {
 public:
  Layers(std::int64_t count, std::int64_t size) : layers_(bench::normal_parameters(count, size)) {}

  void visit(nn::Visitor& visitor) override {
    for (NamedParameter& layer : layers_) visitor(layer.name, layer.parameter);
  }
  Variable forward(const Variable& x) override { return x; }

 private:
  std::vector<NamedParameter> layers_;
};

/// `count` tensors of `size` numbers each.
class Tensors : public Stateful {
 public:
  Tensors(std::int64_t count, std::int64_t size) {
    for (const NamedParameter& named : bench::normal_parameters(count, size)) {
      tensors_[named.name] = named.parameter.value();
    }
  }

  StateDict state_dict() const override { return tensors_; }
  void check_restore(const StateDict& source) const override {
    if (source.size() != tensors_.size()) throw StateError("another number of tensors");
  }
  void restore(const StateDict& source) override {
    check_restore(source);
    auto saved = source.begin();
    for (auto& [name, tensor] : tensors_)
      tensor.as_tensor().copy_from((saved++)->second.as_tensor());
  }

 private:
  StateDict tensors_;
};

/// A model with Adam, which has two moments of each parameter.
class Training {
 public:
  explicit Training(std::int64_t bytes)
      : model_(parameters, bytes / (std::int64_t{sizeof(float)} * 3 * parameters)),
        optimizer_(model_.named_parameters(), optim::Adam()) {
    for (Parameter parameter : model_.parameters()) {
      fill_normal(parameter.mutable_grad(), RandomKey(2), 0, 1);
    }
    optimizer_.step();
    for (Parameter parameter : model_.parameters()) parameter.release_grad();
  }

  std::vector<checkpoint::Item> items() { return {{"model", model_}, {"optimizer", optimizer_}}; }

 private:
  static constexpr std::int64_t parameters = 18;

  Layers model_;
  NamedOptimizer optimizer_;
};

/// Reads a file on rank 0, and copies as many bytes on each: what a load has to do at least.
class ReadAndCopy {
 public:
  ReadAndCopy(const Communicator& ranks, const Path& path, std::size_t bytes)
      : ranks_(ranks), path_(path), from_(bytes, std::byte{1}), to_(bytes, std::byte{2}) {}

  void operator()() {
    if (ranks_.rank() == 0) read();
    ranks_.barrier();
    std::memcpy(to_.data(), from_.data(), to_.size());
    ranks_.barrier();
  }

 private:
  void read() {
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) throw StateError(fmt::format("'{}' cannot be opened", path_.string()));
    for (std::size_t done = 0; done < from_.size();) {
      const ssize_t bytes = ::read(file, from_.data() + done, from_.size() - done);
      if (bytes <= 0) throw StateError(fmt::format("'{}' cannot be read", path_.string()));
      done += static_cast<std::size_t>(bytes);
    }
    ::close(file);
  }

  const Communicator& ranks_;
  Path path_;
  std::vector<std::byte> from_, to_;
};

class Cases {
 public:
  Cases(const Communicator& ranks, const Path& folder, std::int64_t bytes)
      : ranks_(ranks),
        bytes_(bytes),
        scratch_(ranks, folder, 2 * static_cast<std::uintmax_t>(bytes)) {}

  bench::Case save() {
    return [this, training = std::make_shared<Training>(bytes_)](double seconds) {
      return rates(seconds, {[&] { save(*training); }});
    };
  }

  bench::Case load() {
    return [this, training = saved()](double seconds) {
      return rates(seconds, {[&] { load(*training); }});
    };
  }

  bench::Case load_and_copy() {
    const auto training = saved();
    const auto copy = std::make_shared<ReadAndCopy>(ranks_, scratch_.file("state"),
                                                    static_cast<std::size_t>(bytes_));
    return [this, training, copy](double seconds) {
      return rates(seconds, {[&] { load(*training); }, [&] { (*copy)(); }});
    };
  }

  /// Milliseconds for which a save in the background holds the training, and for a copy of as many bytes on
  /// rank 0.
  bench::Case hold() {
    const auto training = std::make_shared<Training>(bytes_);
    const auto saver = std::make_shared<checkpoint::BackgroundSaver>(ranks_);
    const auto size = ranks_.rank() == 0 ? static_cast<std::size_t>(bytes_) : 0;
    return [this, training, saver, from = std::vector<std::byte>(size, std::byte{1}),
            to = std::vector<std::byte>(size, std::byte{2})](double seconds) mutable {
      std::vector<double> held, copied;
      const auto begin = Clock::now();
      // Of which the first turn does not count: it takes the memory of the copy.
      for (int turn = 0;
           turn < 4 || ranks_.all_reduce(seconds_since(begin), ReduceOp::max) < seconds; ++turn) {
        const double copy = timed([&] { std::copy(from.begin(), from.end(), to.begin()); });
        const double hold =
            timed([&] { saver->save_async(scratch_.file("state"), training->items()); });
        saver->wait();
        if (turn == 0) continue;
        copied.push_back(1e3 * copy);
        held.push_back(1e3 * hold);
      }
      return bench::Measurement{bench::median(held), bench::median(copied)};
    };
  }

  /// Milliseconds for many tensors, and for one of as many bytes.
  bench::Case save_many() {
    return [this, many = many_tensors(), one = one_tensor()](double seconds) {
      return times(
          seconds, [&] { save("many", *many); }, [&] { save("one", *one); });
    };
  }

  bench::Case load_many() {
    const auto many = many_tensors(), one = one_tensor();
    save("many", *many);
    save("one", *one);
    return [this, many, one](double seconds) {
      return times(
          seconds, [&] { load("many", *many); }, [&] { load("one", *one); });
    };
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }
  // Seconds until all ranks have done it.
  template <class Call>
  double timed(const Call& call) {
    ranks_.barrier();
    const auto begin = Clock::now();
    call();
    ranks_.barrier();
    return seconds_since(begin);
  }

  void save(Training& training) {
    checkpoint::save(scratch_.file("state"), ranks_, training.items());
  }
  void load(Training& training) {
    checkpoint::load(scratch_.file("state"), ranks_, training.items());
  }
  void save(const std::string& name, Tensors& tensors) {
    checkpoint::save(scratch_.file(name), ranks_, {{"tensors", tensors}});
  }
  void load(const std::string& name, Tensors& tensors) {
    checkpoint::load(scratch_.file(name), ranks_, {{"tensors", tensors}});
  }

  std::shared_ptr<Training> saved() {
    const auto training = std::make_shared<Training>(bytes_);
    save(*training);
    return training;
  }

  static constexpr std::int64_t count = 100'000, size = 250;
  static std::shared_ptr<Tensors> many_tensors() { return std::make_shared<Tensors>(count, size); }
  static std::shared_ptr<Tensors> one_tensor() {
    return std::make_shared<Tensors>(1, count * size);
  }

  // Of the whole state, in GB/s.
  bench::Measurement rates(double seconds, const std::vector<std::function<void()>>& calls) {
    const auto times = bench::median_times(ranks_, seconds, calls);
    const double gigabytes = 1e-9 * static_cast<double>(bytes_);
    bench::Measurement measurement{gigabytes / times[0]};
    if (times.size() > 1) measurement.peer = gigabytes / times[1];
    return measurement;
  }

  bench::Measurement times(double seconds, const std::function<void()>& ours,
                           const std::function<void()>& peer) {
    const auto times = bench::median_times(ranks_, seconds, {ours, peer});
    return {1e3 * times[0], 1e3 * times[1]};
  }

  const Communicator& ranks_;
  std::int64_t bytes_;
  Scratch scratch_;
};

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    if (argc != 3) throw OptionError("expected checkpoint FOLDER EXTENT");
    const std::int64_t mebibytes = std::string(argv[2]) == "quick" ? 128 : 1024;
    const Communicator world(MPI_COMM_WORLD);
    Cases cases(world, argv[1], mebibytes << 20);
    bench::serve(world, {{"save", [&] { return cases.save(); }},
                         {"load", [&] { return cases.load(); }},
                         {"load-memcpy", [&] { return cases.load_and_copy(); }},
                         {"hold", [&] { return cases.hold(); }},
                         {"save-100000", [&] { return cases.save_many(); }},
                         {"load-100000", [&] { return cases.load_many(); }}});
    return 0;
  });
}
