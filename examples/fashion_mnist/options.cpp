#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

using namespace lockstep;

namespace {

const CLI::Range at_least_zero(std::int64_t{0}, std::int64_t{1'000'000'000});
const CLI::Range at_least_one(std::int64_t{1}, std::int64_t{1'000'000'000});
// CLI11 wraps a negative number around.
const CLI::Validator not_negative(
    [](const std::string& text) { return text.starts_with('-') ? text + " is negative" : ""; }, "");

/// One of several words, each of which stands for a value.
template <class Target, class Value>
void add_choice(CLI::App& app, const std::string& name, Target& target,
                const std::map<std::string, Value>& choices, const std::string& description) {
  std::vector<std::string> words;
  for (const auto& [word, value] : choices) words.push_back(word);
  app.add_option_function<std::string>(
         name, [&target, choices](const std::string& word) { target = choices.at(word); },
         description)
      ->check(CLI::IsMember(words))
      ->option_text("WORD");
}

void add_training(CLI::App& app, Options& options) {
  app.option_defaults()->group("Training");
  app.add_option("--data", options.data, "The four IDX files, plain or .gz [Debian's]")
      ->option_text("FOLDER");
  app.add_option("--out", options.out, "For what it writes [run/fashion_mnist]")
      ->option_text("FOLDER");
  app.add_flag("--resume", options.resume, "Go on from the checkpoint in --out");
  app.add_option("--epochs", options.epochs, "Those before a resume included [10]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--batch", options.batch, "Images a step, of each (logical) replica [64]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--network", options.network, "mlp: 784-512-512-10, or cnn: convolutions [mlp]")
      ->check(CLI::IsMember({"mlp", "cnn"}))
      ->option_text("WORD");
  app.add_option("--optimizer", options.optimizer, "sgd or adam [adam]")
      ->check(CLI::IsMember({"sgd", "adam"}))
      ->option_text("WORD");
  app.add_option("--lr", options.lr,
                 "Learning rate [sgd: 0.05, adam: 0.0005,\nafter --resume: that of the run]")
      ->option_text("X");
  app.add_option("--momentum", options.momentum, "Of sgd [0.9]")->option_text("X");
  app.add_option("--seed", options.seed, "Of initial values and the order of images [1]")
      ->check(not_negative)
      ->option_text("N");
}

void add_replicas(CLI::App& app, Options& options) {
  app.option_defaults()->group("Replicas");
  using enum BatchNormalisation;
  add_choice<BatchNormalisation, BatchNormalisation>(
      app, "--batch-norm", options.batch_norm,
      {{"none", none},
       {"local", local},
       {"average", average},
       {"broadcast", broadcast},
       {"synchronised", synchronised}},
      "Normalise hidden layers; statistics are local,\n"
      "average, broadcast or synchronised [none]");
  add_choice<std::optional<UnevenInputs>, UnevenInputs>(
      app, "--uneven", options.uneven,
      {{"join", UnevenInputs::join}, {"shortest", UnevenInputs::shortest}},
      "Rank r has r + 1 shares of the images; join:\ntrain on all of them, or stop with the "
      "shortest");
  app.add_option("--check-every", options.check_every,
                 "Steps between checks of replicas, 0: none [100]")
      ->check(at_least_zero)
      ->option_text("N");
  app.add_option("--local-sgd", options.local_sgd, "Average parameters every N steps, no gradients")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--local-sgd-warmup", options.local_sgd_warmup,
                 "First steps, with an average after each [0]")
      ->check(at_least_zero)
      ->option_text("N");
}

void add_gradients(CLI::App& app, Options& options) {
  app.option_defaults()->group("Gradients");
  app.add_option("--logical-replicas", options.logical_replicas,
                 "Power of two: same bits on any ranks up to it")
      ->check(at_least_one)
      ->option_text("N");
  app.add_option("--accumulate", options.accumulate, "Batches for each step [1]")
      ->check(at_least_one)
      ->option_text("N");
  app.add_flag("--sharded", options.sharded, "Each rank steps its share of the parameters");
  app.add_flag("--in-reduction", options.in_reduction,
               "With --sharded: step as gradients are reduced,\nof which none is kept");
  add_choice<GradientReduction, GradientReduction>(
      app, "--reduction", options.reduction,
      {{"mean", GradientReduction::mean}, {"sum", GradientReduction::sum}},
      "mean or sum over the images [mean]");
  app.add_option("--predivide", options.predivide, "Divide by it before a sum, not after [1]")
      ->option_text("X");
  add_choice<MissingGradients, MissingGradients>(app, "--missing", options.missing,
                                                 {{"zero", MissingGradients::zero},
                                                  {"leave-out", MissingGradients::leave_out},
                                                  {"error", MissingGradients::error}},
                                                 "Gradients that some ranks have not: zero,\n"
                                                 "leave-out or error [zero]");
  app.add_option("--clip", options.clip, "Largest norm of all gradients as one vector")
      ->option_text("NORM");
  add_choice<std::optional<optim::NonFinite>, optim::NonFinite>(
      app, "--non-finite", options.non_finite,
      {{"error", optim::NonFinite::error},
       {"skip", optim::NonFinite::skip},
       {"ignore", optim::NonFinite::ignore}},
      "Step with NaN or infinite gradients: error, skip\nor ignore [error with --clip, or ignore]");
  app.add_flag("--loss-scale", options.loss_scale, "Scale the loss, dynamically");
}

void add_compression(CLI::App& app, Options& options) {
  app.option_defaults()->group("Between hosts");
  app.add_option("--hosts", options.hosts, "Take the ranks to be on N hosts, to try this")
      ->check(at_least_one)
      ->option_text("N");
  add_choice<WireFormat, WireFormat>(
      app, "--wire", options.wire,
      {{"full", WireFormat::full}, {"fp16", WireFormat::fp16}, {"bf16", WireFormat::bf16}},
      "Gradients travel in full, fp16 or bf16 [full]");
  CLI::Option* const top_k =
      app.add_option("--top-k", options.top_k, "Send that share of the numbers of a gradient")
          ->option_text("X");
  app.add_option("--power-sgd", options.power_sgd, "Send gradients as products of that rank")
      ->check(at_least_one)
      ->excludes(top_k)
      ->option_text("N");
  app.add_option("--compress-after", options.compress_after, "Steps before that begins [0]")
      ->check(not_negative)
      ->option_text("N");
}

/// Why options cannot go together; empty where they can.
std::string contradiction(const Options& options) {
  using enum BatchNormalisation;
  const bool logical = options.logical_replicas > 0, local_sgd = options.local_sgd > 0;
  const bool accumulates = options.accumulate > 1;
  const bool narrow = options.compresses() || options.wire != WireFormat::full;
  const bool sums = options.reduction == GradientReduction::sum;
  const std::vector<std::pair<bool, std::string>> rules{
      {logical && accumulates, "--logical-replicas cut each batch themselves: no --accumulate"},
      {logical && options.uneven, "--logical-replicas cut one global batch: no --uneven"},
      {logical && options.batch_norm != none && options.batch_norm != average,
       "with --logical-replicas, --batch-norm can be average only"},
      {logical && narrow,
       "--logical-replicas give the same bits on any hosts: no --wire, --top-k or --power-sgd"},
      {!options.compresses() && options.compress_after > 0,
       "--compress-after is one of --top-k and --power-sgd"},
      {sums && options.missing == MissingGradients::leave_out,
       "--missing leave-out is about a mean, not about --reduction sum"},
      {options.loss_scale && options.non_finite,
       "--loss-scale skips steps that are not finite: no --non-finite"},
      {options.replicas_differ() && options.check_every.value_or(0) > 0,
       "--check-every needs replicas that are alike: not --local-sgd or --batch-norm local"},
      {!local_sgd && options.local_sgd_warmup > 0, "--local-sgd-warmup is one of --local-sgd"},
      {local_sgd && (logical || accumulates || sums || narrow || options.predivide != 1 ||
                     options.missing != MissingGradients::zero),
       "--local-sgd reduces no gradients: no --logical-replicas, --accumulate, --reduction, "
       "--predivide, --missing, --wire, --top-k or --power-sgd"},
      {local_sgd && (options.loss_scale || options.non_finite == optim::NonFinite::skip),
       "with --local-sgd, a step that one rank alone skips would part the optimizers: no "
       "--loss-scale or --non-finite skip"},
      {local_sgd && options.sharded, "--local-sgd steps each replica by itself: no --sharded"},
      {options.in_reduction && !options.sharded, "--in-reduction is one of --sharded"},
      {options.in_reduction &&
           (logical || options.compresses() || options.missing == MissingGradients::leave_out ||
            options.clip || options.non_finite || options.loss_scale),
       "--in-reduction steps before all gradients are known: no --logical-replicas, --top-k, "
       "--power-sgd, --missing leave-out, --clip, --non-finite or --loss-scale"},
      {local_sgd && options.uneven == UnevenInputs::join,
       "with --local-sgd, all ranks make all steps: --uneven can be shortest only"},
      {local_sgd && (options.batch_norm == broadcast || options.batch_norm == synchronised),
       "with --local-sgd, no step waits for others: --batch-norm can be local or average only"}};
  for (const auto& [applies, why] : rules) {
    if (applies) return why;
  }
  return {};
}

}  // namespace

CommandLine parse_command_line(int argc, char** argv, int rank) {
  CommandLine result;
  CLI::App app("Trains on Fashion-MNIST, on as many ranks as mpirun starts.", "fashion_mnist");
  app.get_formatter()->column_width(27);
  add_training(app, result.options);
  add_replicas(app, result.options);
  add_gradients(app, result.options);
  add_compression(app, result.options);
  try {
    app.parse(argc, argv);
    if (const std::string why = contradiction(result.options); !why.empty()) {
      throw CLI::ValidationError(why);
    }
  } catch (const CLI::CallForHelp&) {
    if (rank == 0) std::fputs(app.help().c_str(), stdout);
    result.exit_status = 0;
  } catch (const CLI::ParseError& error) {
    if (rank == 0) std::fprintf(stderr, "error: %s (try --help)\n", error.what());
    result.exit_status = 2;
  }
  return result;
}
