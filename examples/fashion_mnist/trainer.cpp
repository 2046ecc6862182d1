#include "trainer.hpp"

#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <utility>

using namespace lockstep;

namespace {

nn::Sequential perceptron(bool batch_norm) {
  nn::Sequential model{nn::Flatten()};
  std::int64_t inputs = 784;
  for (const std::int64_t width : {512, 512}) {
    model.append(nn::Linear(inputs, width));
    if (batch_norm) model.append(nn::BatchNorm(width));
    model.append(nn::ReLU());
    inputs = width;
  }
  model.append(nn::Linear(inputs, 10));
  return model;
}

nn::Sequential convolutional(bool batch_norm) {
  nn::Sequential model{nn::Unflatten({1, 28, 28})};
  std::int64_t inputs = 1;
  for (const std::int64_t maps : {32, 64}) {
    model.append(nn::Conv2d(inputs, maps, 3, {.padding = 1}));
    if (batch_norm) model.append(nn::BatchNorm(maps));
    model.append(nn::ReLU());
    model.append(nn::MaxPool2d(2));
    inputs = maps;
  }
  model.append(nn::Flatten());
  model.append(nn::Linear(7 * 7 * inputs, 128));
  model.append(nn::ReLU());
  model.append(nn::Linear(128, 10));
  return model;
}

}  // namespace

nn::Sequential make_model(const Options& options) {
  const bool batch_norm = options.batch_norm != BatchNormalisation::none;
  nn::Sequential model =
      options.network == "cnn" ? convolutional(batch_norm) : perceptron(batch_norm);
  model.initialize(options.seed);
  return model;
}

namespace {

std::shared_ptr<const GradientCompression> compression_of(const Options& options) {
  if (options.top_k) {
    return std::make_shared<TopK>(
        TopK::Options{.fraction = *options.top_k, .first_reduction = options.compress_after});
  }
  if (options.power_sgd) {
    return std::make_shared<PowerSgd>(PowerSgd::Options{.rank = *options.power_sgd,
                                                        .first_reduction = options.compress_after,
                                                        .seed = options.seed});
  }
  return nullptr;
}

DataParallelOptions replica_options(const Options& options) {
  DataParallelOptions result{
      .reduction = options.reduction,
      .predivide = options.predivide,
      .missing = options.missing,
      .wire = options.wire,
      .compression = compression_of(options),
      .keep_gradients = !options.in_reduction,
      .synchronise_batch_norm = options.batch_norm == BatchNormalisation::synchronised,
      .logical_replicas = options.logical_replicas};
  if (options.batch_norm == BatchNormalisation::local) result.buffers = ReplicaBufferPolicy::local;
  if (options.batch_norm == BatchNormalisation::broadcast) {
    result.buffers = ReplicaBufferPolicy::broadcast;
  }
  return result;
}

}  // namespace

Trainer::Trainer(nn::Module& model, const optim::UpdateRule& rule, const Options& options,
                 const Communicator& ranks)
    : options_(options), ranks_(ranks), model_(&model) {
  if (options.local_sgd > 0) {
    const ParameterAveragerOptions averages{.every = options.local_sgd,
                                            .warmup_steps = options.local_sgd_warmup};
    if (options.batch_norm == BatchNormalisation::local) {
      averager_.emplace(model.named_parameters(), ranks, averages);
    } else {
      averager_.emplace(model, ranks, averages);
    }
  } else {
    replica_.emplace(model, ranks, replica_options(options));
  }
  if (options.sharded) {
    auto sharded = std::make_unique<ShardedOptimizer>(model.named_parameters(), rule, ranks);
    if (options.in_reduction) in_reduction_.emplace(replica_->reducer(), *sharded);
    optimizer_ = std::move(sharded);
  } else {
    optimizer_ = std::make_unique<NamedOptimizer>(model.named_parameters(), rule);
  }
  if (options.clip) {
    optimizer_->set_clipping({.global_norm = options.clip,
                              .non_finite = options.non_finite.value_or(optim::NonFinite::error)});
  }
  std::vector<ReplicaCheck::Item> alike{{"model", model}, {"optimizer", *optimizer_}};
  if (options.loss_scale) alike.emplace_back("loss_scale", loss_scale_.emplace());
  // Without checks it still counts the steps, for a resume that has some.
  const std::int64_t every = options.check_every.value_or(options.replicas_differ() ? 0 : 100);
  check_.emplace(
      ranks, std::move(alike),
      ReplicaCheckOptions{.every = every > 0 ? every : std::numeric_limits<std::int64_t>::max()});
}

Variable Trainer::loss(const data::Batch& batch) {
  const Variable logits = (*model_)(batch.inputs);
  const Variable loss = cross_entropy(logits, batch.targets);
  score_.add(loss.value().item(), logits.value(), batch.targets);
  return loss_scale_ ? loss_scale_->scale(loss) : loss;
}

bool Trainer::take(const data::Batch& batch) {
  if (batches_ == 0) optimizer_->zero_grad();
  const bool last = ++batches_ == options_.accumulate;
  if (averager_) {
    loss(batch).backward();
  } else {
    const auto deferral = last ? nullptr : replica_->no_sync();
    backward(batch);
  }
  if (last) step();
  return last;
}

void Trainer::backward(const data::Batch& batch) {
  replica_->backward(batch, [this](const data::Batch& part) { return loss(part); });
}

void Trainer::step() {
  batches_ = 0;
  StepReport report;
  if (loss_scale_) {
    report = loss_scale_->step(*optimizer_);
    loss_scale_->update();
  } else if (!in_reduction_) {
    report = optimizer_->step({.non_finite = options_.non_finite});
  }
  if (!report.applied) ++skipped_;
  if (averager_) averager_->step(*optimizer_);
  check_->step();
}

bool Trainer::end_epoch() {
  const bool left = batches_ > 0;
  if (left) {
    backward({});
    step();
  }
  if (averager_) averager_->average(*optimizer_);
  if (options_.batch_norm == BatchNormalisation::local) {
    for (auto& [name, buffer] : model_->named_buffers()) {
      ranks_.broadcast_bytes(buffer.raw(), buffer.bytes());
    }
  }
  return left;
}

std::vector<checkpoint::Item> Trainer::state() {
  std::vector<checkpoint::Item> items{{"optimizer", *optimizer_}, {"check", *check_}};
  if (loss_scale_) items.emplace_back("loss_scale", *loss_scale_);
  if (averager_) items.emplace_back("averager", *averager_);
  if (options_.compresses()) items.emplace_back("compression", replica_->reducer());
  return items;
}

void Trainer::begin_epoch() {
  start_ = std::chrono::steady_clock::now();
  waited_ = replica_ ? replica_->reducer().waited() : 0;
}

Interval Trainer::take_interval() {
  Interval interval{.score = std::exchange(score_, {}).over(ranks_),
                    .skipped = std::exchange(skipped_, 0)};
  const double waited = waited_;
  const auto start = start_;
  begin_epoch();
  interval.seconds = std::chrono::duration<double>(start_ - start).count();
  if (replica_) {
    const double share = (waited_ - waited) / interval.seconds;
    interval.waiting = ranks_.gather(std::span<const double>(&share, 1));
  }
  return interval;
}

bool Trainer::may_skip() const {
  return options_.loss_scale || options_.non_finite == optim::NonFinite::skip;
}

std::optional<double> Trainer::loss_scale() const {
  return loss_scale_ ? std::optional(loss_scale_->value()) : std::nullopt;
}

double Interval::mean_waiting() const {
  return std::accumulate(waiting.begin(), waiting.end(), 0.0) / static_cast<double>(waiting.size());
}
