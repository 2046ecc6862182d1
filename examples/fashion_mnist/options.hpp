#pragma once

#include <cstdint>
#include <filesystem>
#include <lockstep/optim/clipping.hpp>
#include <lockstep/parallel/gradient_reducer.hpp>
#include <lockstep/parallel/join.hpp>
#include <optional>
#include <string>

/// Whether there is a BatchNorm after each hidden layer, and what becomes of its running statistics;
/// `synchronised` ones are those of the whole global batch.
enum class BatchNormalisation { none, local, average, broadcast, synchronised };

struct Options {
  std::filesystem::path data = "/usr/share/datasets/fashion-mnist";
  std::filesystem::path out = "run/fashion_mnist";
  std::int64_t epochs = 10;
  std::int64_t batch = 64;
  std::string network = "mlp";
  std::string optimizer = "adam";
  std::optional<double> lr;
  double momentum = 0.9;
  std::uint64_t seed = 1;
  bool resume = false;

  BatchNormalisation batch_norm = BatchNormalisation::none;
  std::optional<lockstep::UnevenInputs> uneven;

  std::int64_t logical_replicas = 0;
  std::int64_t accumulate = 1;
  bool sharded = false;
  bool in_reduction = false;
  lockstep::GradientReduction reduction = lockstep::GradientReduction::mean;
  double predivide = 1;
  lockstep::MissingGradients missing = lockstep::MissingGradients::zero;
  std::int64_t hosts = 0;  ///< that the ranks are taken to be on; 0 for those that they are on
  lockstep::WireFormat wire = lockstep::WireFormat::full;
  std::optional<double> top_k;            ///< share of the numbers of a gradient
  std::optional<std::int64_t> power_sgd;  ///< rank
  std::uint64_t compress_after = 0;       ///< reductions
  std::int64_t local_sgd =
      0;  ///< steps from one average to the next; 0 where gradients are reduced
  std::int64_t local_sgd_warmup = 0;

  std::optional<double> clip;
  std::optional<lockstep::optim::NonFinite> non_finite;
  bool loss_scale = false;
  /// Steps from one check to the next, 0 for none. By default none where replicas are meant to differ.
  std::optional<std::int64_t> check_every;

  bool compresses() const { return top_k || power_sgd; }
  /// Whether replicas differ between the ends of epochs.
  bool replicas_differ() const { return local_sgd > 0 || batch_norm == BatchNormalisation::local; }
};

/// What the command line asks for. Where it asks for help, or cannot be understood, `exit_status`
/// is set, and rank 0 has printed why.
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};

CommandLine parse_command_line(int argc, char** argv, int rank);
