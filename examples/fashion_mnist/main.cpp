#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <lockstep/lockstep.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "images.hpp"
#include "options.hpp"
#include "report.hpp"
#include "score.hpp"
#include "trainer.hpp"

using namespace lockstep;

namespace {

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

std::optional<int> host_of(int rank, int ranks, const Options& options) {
  if (options.hosts == 0) return std::nullopt;
  return static_cast<int>(rank * options.hosts / ranks);
}

int run(const Options& options, const Communicator& world) {
  const bool reports = world.rank() == 0;
  const auto checkpoints_path = options.out / "checkpoints";
  const auto metrics_path = options.out / "metrics.jsonl";
  const auto picture_path = options.out / "curves.svg";

  std::optional<data::TensorDataset> training, test;
  std::optional<Share> share;
  std::unique_ptr<optim::UpdateRule> rule;
  std::optional<data::DataLoader> loader;
  world.agree([&] {
    rule = make_rule(options);
    training.emplace(read_split(options.data, "train"));
    test.emplace(read_split(options.data, "t10k"));
    share.emplace(images_of_rank(*training, options, world));
    loader.emplace(*share, make_sampler(share->size(), options, world));
    if (reports && options.resume && !std::filesystem::exists(checkpoints_path)) {
      throw OptionError(fmt::format("--resume: there is no '{}'", checkpoints_path.string()));
    }
  });
  const std::int64_t images = images_per_epoch(loader->sampler(), options, world);

  nn::Sequential model = make_model(options);
  Trainer trainer(model, *rule, options, world);
  auto& group = trainer.optimizer().param_groups()[0];

  std::int64_t step = 0, epoch = 0;
  Scalars progress({{"step", &step}, {"epoch", &epoch}});
  std::vector<checkpoint::Item> state = trainer.state();
  state.insert(state.end(), {{"model", model}, {"progress", progress}});
  // Loaders of uneven ranks differ, but begin each epoch anew.
  if (!options.uneven) state.emplace_back("loader", *loader);
  CheckpointManager checkpoints(checkpoints_path, world, state,
                                {.every_minutes = 5,
                                 .keep_last = 2,
                                 .keep_best = 1,
                                 .best = BestMetric::highest,
                                 .signals = {SIGINT, SIGTERM, SIGUSR1}});
  if (!options.resume && checkpoints.newest()) {
    throw_collective({ErrorKind::option,
                      fmt::format("'{}' exists: pass --resume to go on with it, or another --out",
                                  checkpoints.path(*checkpoints.newest()))});
  }
  if (checkpoints.load_latest() && options.lr) group.set_lr(*options.lr);
  // Only then is all of the state in a checkpoint, and alike on all ranks.
  const bool saves_within_epochs = !options.uneven && !options.replicas_differ();
  const auto where = [&] {
    const std::int64_t images_done = loader->sampler().position();
    return images_done == 0 || options.uneven
               ? fmt::format("epoch {}", epoch)
               : fmt::format("{} images of epoch {}", images_done, epoch + 1);
  };
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
               options.resume ? fmt::format(", resumed after {}", where()) : "");
  }

  std::optional<Score> test_score;
  while (epoch < options.epochs && !checkpoints.stop_requested()) {
    train::Progress bar(fmt::format("epoch {}/{}", epoch + 1, options.epochs), images,
                        {.enabled = reports, .unit = "img"});
    std::int64_t done = options.uneven ? 0 : loader->sampler().position(), steps_reported = step;
    const auto report = [&] {
      steps_reported = step;
      const Interval interval = trainer.take_interval();
      const Score& score = interval.score;
      done += static_cast<std::int64_t>(score.samples);
      if (!reports) return;
      bar.set_waiting(interval.mean_waiting());
      bar.update(done,
                 fmt::format("loss {:.2f}, {:.0f} %", score.mean_loss(), 100 * score.accuracy()));
      train::MetricRecord record{
          {"split", "train"},
          {"step", step},
          {"epoch",
           static_cast<double>(epoch) + static_cast<double>(done) / static_cast<double>(images)},
          {"loss", score.mean_loss()},
          {"accuracy", score.accuracy()},
          {"lr", group.lr()},
          {"samples_per_second", score.samples / interval.seconds}};
      if (!interval.waiting.empty()) record.push_back({"waiting", interval.waiting});
      if (trainer.may_skip()) record.push_back({"skipped_steps", interval.skipped});
      if (const auto scale = trainer.loss_scale()) record.push_back({"loss_scale", *scale});
      metrics->append(record);
    };
    const auto train_on = [&](auto&& batches) {
      constexpr std::int64_t report_interval = 20;
      for (const data::Batch& batch : batches) {
        if (!trainer.take(batch)) continue;
        if (++step % report_interval == 0) report();
        if (saves_within_epochs) checkpoints.step(step);
        if (checkpoints.stop_requested()) break;
      }
      if (!checkpoints.stop_requested() && trainer.end_epoch()) ++step;
      if (step > steps_reported) report();
    };
    trainer.begin_epoch();
    if (options.uneven) {
      loader->sampler().set_epoch(epoch);
      train_on(JoinedBatches(*loader, world, *options.uneven));
    } else {
      train_on(*loader);
    }
    if (reports) bar.finish();
    if (checkpoints.stop_requested()) break;
    ++epoch;
    test_score = evaluate(model, *test, world);
    // Unlike the loss, it has the same bits on any number of ranks.
    const double accuracy = test_score->accuracy();
    if (!checkpoints.step(step, accuracy)) checkpoints.save(step, accuracy);
    if (!reports) continue;
    fmt::print("{:>11} loss {:.3f}, accuracy {:.2f} % on the test images\n", "",
               test_score->mean_loss(), 100 * test_score->accuracy());
    metrics->append({{"split", "test"},
                     {"step", step},
                     {"epoch", static_cast<double>(epoch)},
                     {"loss", test_score->mean_loss()},
                     {"accuracy", test_score->accuracy()}});
    draw_curves(metrics_path, picture_path);
  }

  if (checkpoints.stop_requested()) {
    if (reports) {
      fmt::print("\nstopped after {}: go on with --resume\n", where());
    }
    return 0;
  }
  if (!test_score) test_score = evaluate(model, *test, world);
  if (reports) {
    fmt::print("\ntest accuracy  {:.2f} % after epoch {}\n", 100 * test_score->accuracy(), epoch);
    fmt::print("checkpoint     {}\nmetrics        {}\npicture        {}\n", checkpoints.path(step),
               metrics_path.string(), picture_path.string());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const mpi::Environment mpi(argc, argv);
  return mpi.run([&] {
    Communicator world(MPI_COMM_WORLD);
    const CommandLine command = parse_command_line(argc, argv, world.rank());
    if (world.rank() == 0) {
      set_log_callback([](LogLevel level, std::string_view message) {
        if (level == LogLevel::warning) fmt::print("warning: {}\n", message);
      });
    }
    int status = command.exit_status.value_or(0);
    if (!command.exit_status) {
      Communicator ranks(MPI_COMM_WORLD,
                         {.node = host_of(world.rank(), world.size(), command.options)});
      status = run(command.options, ranks);
      ranks.close();
    }
    world.close();
    return status;
  });
}
