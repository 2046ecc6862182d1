#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <lockstep/lockstep.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "options.hpp"
#include "report.hpp"

using namespace lockstep;

namespace {

/// Loss and accuracy over a number of samples.
struct Score {
  double loss = 0, correct = 0, samples = 0;

  void add(double mean_loss, const Tensor& logits, const Tensor& labels) {
    const std::int64_t rows = logits.shape()[0], classes = logits.shape()[1];
    const float* row = logits.data<float>();
    for (const std::int64_t label : labels.span<std::int64_t>()) {
      correct += std::max_element(row, row + classes) - row == label;
      row += classes;
    }
    loss += mean_loss * static_cast<double>(rows);
    samples += static_cast<double>(rows);
  }

  /// The score over the samples of all ranks; collective.
  Score over(const Communicator& ranks) const {
    std::array<double, 3> sums{loss, correct, samples};
    ranks.all_reduce(std::span<double>(sums));
    return {sums[0], sums[1], sums[2]};
  }

  double mean_loss() const { return loss / samples; }
  double accuracy() const { return correct / samples; }
};

/// Mean and standard deviation of the pixels of the training images.
constexpr data::TensorDatasetOptions normalization{.mean = 0.2860, .stddev = 0.3530};

data::TensorDataset read_split(const std::filesystem::path& folder, const std::string& split) {
  const auto file = [&](const std::string& kind) {
    const std::filesystem::path plain = folder / (split + kind);
    return std::filesystem::exists(plain) ? plain : std::filesystem::path(plain.string() + ".gz");
  };
  auto images =
      data::read_idx_dataset(file("-images-idx3-ubyte"), file("-labels-idx1-ubyte"), normalization);
  const std::int64_t pixels = images.batch(std::array<std::int64_t, 1>{0}).inputs.size();
  if (pixels != 784) {
    throw DataError(fmt::format("the images of '{}' in '{}' have {} pixels, not 784", split,
                                folder.string(), pixels));
  }
  return images;
}

std::unique_ptr<optim::UpdateRule> make_rule(const Options& options) {
  if (options.optimizer == "sgd") {
    return optim::SGD({.lr = options.lr.value_or(0.05), .momentum = options.momentum}).clone();
  }
  return optim::Adam({.lr = options.lr.value_or(5e-4)}).clone();
}

/// Scores the test images, of which each rank takes its share; collective.
Score evaluate(nn::Module& model, const data::Dataset& images, const Communicator& ranks) {
  const NoGrad no_grad;
  model.eval();
  constexpr std::int64_t batch_size = 500;
  const std::int64_t begin = images.size() * ranks.rank() / ranks.size();
  const std::int64_t end = images.size() * (ranks.rank() + 1) / ranks.size();
  Score score;
  std::vector<std::int64_t> indices;
  for (std::int64_t first = begin; first < end; first += batch_size) {
    indices.clear();
    for (std::int64_t i = first; i < std::min(first + batch_size, end); ++i) indices.push_back(i);
    const data::Batch batch = images.batch(indices);
    const Variable logits = model(batch.inputs);
    score.add(cross_entropy(logits, batch.targets).value().item(), logits.value(), batch.targets);
  }
  model.train();
  return score.over(ranks);
}

int run(const Options& options, const Communicator& world) {
  const bool reports = world.rank() == 0;
  const auto checkpoint_path = options.out / "checkpoint.lockstep";
  const auto metrics_path = options.out / "metrics.jsonl";
  const auto picture_path = options.out / "curves.svg";

  std::optional<data::TensorDataset> training, test;
  std::unique_ptr<optim::UpdateRule> rule;
  std::optional<data::DataLoader> loader;
  world.agree([&] {
    rule = make_rule(options);
    training.emplace(read_split(options.data, "train"));
    test.emplace(read_split(options.data, "t10k"));
    loader.emplace(*training,
                   data::DistributedSampler(training->size(), options.batch * world.size(),
                                            world.rank(), world.size(), {.seed = options.seed}));
    if (!options.resume && std::filesystem::exists(checkpoint_path)) {
      throw OptionError(fmt::format("'{}' exists: pass --resume to go on with it, or another --out",
                                    checkpoint_path.string()));
    }
  });

  nn::Sequential model{nn::Flatten(),        nn::Linear(784, 512), nn::ReLU(),
                       nn::Linear(512, 512), nn::ReLU(),           nn::Linear(512, 10)};
  model.initialize(options.seed);
  DataParallel replica(model, world);
  NamedOptimizer optimizer(model.named_parameters(), *rule);

  std::int64_t step = 0;
  Scalars progress({{"step", &step}});
  const std::vector<checkpoint::Item> state{
      {"model", model}, {"optimizer", optimizer}, {"loader", *loader}, {"progress", progress}};
  if (options.resume) {
    checkpoint::load(checkpoint_path, world, state);
    if (options.lr) optimizer.param_groups()[0].set_lr(*options.lr);
  }
  std::optional<train::MetricsLog> metrics;
  world.agree([&] {
    if (!reports) return;
    std::filesystem::create_directories(options.out);
    metrics.emplace(metrics_path,
                    options.resume ? train::MetricsMode::resume : train::MetricsMode::create);
    metrics->keep_until("step", static_cast<double>(step));
  });
  if (reports) {
    fmt::print("{} training and {} test images, {} rank{}, {}, seed {}{}\n", training->size(),
               test->size(), world.size(), world.size() == 1 ? "" : "s", rule->name(), options.seed,
               options.resume ? fmt::format(", resumed after epoch {}", loader->epoch()) : "");
  }

  std::optional<Score> test_score;
  while (loader->epoch() < options.epochs) {
    const std::int64_t epoch = loader->epoch();
    train::Progress bar(fmt::format("epoch {}/{}", epoch + 1, options.epochs), training->size(),
                        {.enabled = reports, .unit = "images"});
    Score since_report;
    for (const data::Batch& batch : *loader) {
      optimizer.zero_grad();
      Variable logits;
      const double loss = replica.backward(batch, [&](const data::Batch& part) {
        logits = model(part.inputs);
        return cross_entropy(logits, part.targets);
      });
      optimizer.step();
      ++step;
      if (logits.defined()) since_report.add(loss, logits.value(), batch.targets);

      const std::int64_t done = loader->sampler().position();
      constexpr std::int64_t report_interval = 20;
      if (step % report_interval != 0 && done != training->size()) continue;
      const Score score = std::exchange(since_report, {}).over(world);
      if (!reports) continue;
      bar.update(
          done, fmt::format("loss {:.3f} acc {:.1f} %", score.mean_loss(), 100 * score.accuracy()));
      metrics->append(
          {{"split", "train"},
           {"step", step},
           {"epoch", static_cast<double>(epoch) +
                         static_cast<double>(done) / static_cast<double>(training->size())},
           {"loss", score.mean_loss()},
           {"accuracy", score.accuracy()}});
    }
    if (reports) bar.finish();
    test_score = evaluate(model, *test, world);
    checkpoint::save(checkpoint_path, world, state);
    if (!reports) continue;
    fmt::print("{:>11} loss {:.3f}, accuracy {:.2f} % on the test images\n", "",
               test_score->mean_loss(), 100 * test_score->accuracy());
    metrics->append({{"split", "test"},
                     {"step", step},
                     {"epoch", static_cast<double>(loader->epoch())},
                     {"loss", test_score->mean_loss()},
                     {"accuracy", test_score->accuracy()}});
    draw_curves(metrics_path, picture_path);
  }

  if (!test_score) test_score = evaluate(model, *test, world);
  if (reports) {
    fmt::print("\ntest accuracy  {:.2f} % after epoch {}\n", 100 * test_score->accuracy(),
               loader->epoch());
    fmt::print("checkpoint     {}\nmetrics        {}\npicture        {}\n",
               checkpoint_path.string(), metrics_path.string(), picture_path.string());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    Communicator world(MPI_COMM_WORLD);
    const CommandLine command = parse_command_line(argc, argv, world.rank());
    const int status = command.exit_status ? *command.exit_status : run(command.options, world);
    world.close();
    return status;
  });
}
