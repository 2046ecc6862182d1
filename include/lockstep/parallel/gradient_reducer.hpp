#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "lockstep/autograd/parameter.hpp"
#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/wire.hpp"
#include "lockstep/parallel/compression.hpp"
#include "lockstep/state/stateful.hpp"

#pragma GCC visibility push(default)

namespace lockstep {

/// What the gradients g of several ranks, with weights w, become.
enum class GradientReduction {
  mean,  ///< Σ w·g / Σ w
  sum,   ///< Σ w·g
};

/// What becomes of a parameter of which some ranks have no gradient when a backward is over. A batch
/// in several parts is as many: who has reached it in one of them only has missed it in the others.
enum class MissingGradients {
  zero,  ///< theirs counts as zero: the gradient of the mean, or sum, of the losses of all ranks
  leave_out,  ///< a mean is that over the ranks that have one
  error,      ///< StateError on all ranks, which names it; also where no rank has one
};

/// Alike on all ranks.
struct GradientReducerOptions {
  /// A bucket is reduced as soon as it has gradients of at least so many bytes, while the backward
  /// goes on. Affects the speed alone: the results are the same to the bit.
  std::size_t bucket_bytes = std::size_t{1} << 18;
  GradientReduction reduction = GradientReduction::mean;
  /// Gradients are divided by it before they are summed, and the sum is multiplied by it: where the
  /// sum over many ranks would be beyond the largest number. The result is the same but for rounding.
  double predivide = 1;
  MissingGradients missing = MissingGradients::zero;
  /// As what gradients travel between nodes. In half precision they do as means over the samples of a
  /// node, so that what they are multiplied with does not make them too large. Numbers that are too large
  /// all the same become infinite, on all ranks.
  WireFormat wire = WireFormat::full;
  /// What tells gradients to other nodes with fewer numbers: TopK, PowerSgd, or one of your own. None
  /// where it is null. Ranks that cannot share memory are nodes by themselves.
  std::shared_ptr<const GradientCompression> compression = nullptr;
  /// Whether there is memory for the gradients of all parameters. If not, several ranks need a StepInReduction
  /// in each reduction: a gradient is in memory of its own until its bucket has one of a few places that
  /// buckets have by turns, so far as other ranks have come as far, and is gone then. Pointers to gradients are
  /// valid until mark_ready(), or until the backward ends. Needs what a StepInReduction needs.
  bool keep_gradients = true;
};

/// Averages the gradients of named parameters over all ranks in the course of every backward; all
/// have them when backward() returns.
///
/// While it lives, the values of the parameters lie in one flat buffer for each dtype and their
/// gradients in another, in reverse order of the list, each at a 64-byte boundary; parameters in
/// borrowed memory stay there. Pointers into them stay valid from construction to destruction.
///
/// A backward writes gradients into memory that the ranks of a node share, and leaves the averaged
/// ones at another place there, which all of them read: grad() is a read-only view of it, and
/// mutable_grad() copies it first. Where memory cannot be shared, each rank has its own, with the
/// same results. Sums are made in a fixed order: the gradients are the same to the bit on all ranks,
/// and in every run on the same ranks.
///
/// Where a backward throws on some ranks, all others get the exception of the lowest one of these,
/// marked collective(), and gradients are as they were before what is not reduced yet. Ranks that do
/// not reduce the same get a StateError, after which no more is reduced. What a final hook throws
/// on some ranks only, when the reduction is over, the next one throws on all, unless discard() comes
/// first.
///
/// A backward adds to the gradient that is there, as in PyTorch; what was averaged before is not
/// counted again. A parameter that a backward reached on no rank stays as it was. What was reached on
/// some ranks only is up to GradientReducerOptions::missing; the first time that anything was not, a
/// warning names it.
///
/// requires_grad may change between backwards, on all ranks alike: frozen parameters take no part in
/// the reduction. Where a backward finds that ranks differ in it, all get a StateError that names
/// parameter and rank.
///
/// Its state is what compression leaves for later reductions; there is none without it.
class GradientReducer : public Stateful {
 public:
  /// Collective. Throws on all ranks: NameError, ShapeError or DTypeError, which names the first
  /// difference and two ranks, where the lists differ; StateError where a parameter belongs to
  /// another reducer; OptionError for an empty list, or options that differ or are out of range. The
  /// rounds of a reducer are collective calls on the communicator, among those that a caller makes.
  GradientReducer(std::vector<NamedParameter> parameters, const Communicator& communicator,
                  const GradientReducerOptions& options = {});
  /// Not collective: moves values and gradients back into memory of their own.
  ~GradientReducer() override;
  GradientReducer(GradientReducer&&) noexcept;
  GradientReducer& operator=(GradientReducer&&) noexcept;

  const Communicator& communicator() const noexcept;

  /// Whether the ranks of a node share the memory of gradients.
  bool shared() const noexcept;

  /// What the gradients of this rank count in what is reduced from now on, such as its number of
  /// samples; 1 where it was never set, and after each DataParallel::backward with a batch. Every
  /// reduction gets an OptionError on all ranks for a weight that is neither 0 nor a positive normal
  /// number of f32, or for a mean with weights that are all zero where there is anything to reduce; its
  /// gradients are then still there for the next one. StateError while a reduction is under way, or
  /// where DataParallel::backward(batch, loss) has left gradients under no_sync(), which count samples.
  void set_weight(double weight);

  /// For gradients that no backward computes: this rank has written its own one of the parameter
  /// where mutable_grad() is, and will not touch it until finish() has returned. The reduction
  /// begins as soon as other parameters allow. What was there before is replaced, on all ranks, and on
  /// this one even if the reduction fails. NameError for a parameter of another reducer, StateError for
  /// one that is ready already, and where gradients are those of DataParallel::backward(batch, loss):
  /// with logical replicas, or left by it under no_sync().
  void mark_ready(const Parameter& parameter);

  /// While what it returns is kept, gradients add up on this rank and no backward reduces them. The
  /// next backward after that, or finish(), reduces them all. Must be alike on all ranks. A backward that
  /// throws meanwhile makes that reduction fail on all ranks, unless discard() comes first.
  [[nodiscard]] std::shared_ptr<const void> no_sync();

  /// Reduces what has come together since the last reduction, by backwards under no_sync() or by
  /// mark_ready(). Collective.
  void finish();

  /// Seconds that this rank has waited for others, and for what it had to do after its backwards, to
  /// complete reductions.
  double waited() const noexcept;

  /// Forgets, on this rank, what has come together since the last reduction; gradients are what
  /// they were then. StateError where the reduction of any of it is under way.
  void discard();

  /// The number of reductions, and under "parameters", for each compressed gradient by name, what each
  /// node has "left" of it, of shape (nodes, size), and the state of its "compressor". Collective, and the
  /// same on all ranks.
  StateDict state_dict() const override;
  /// NameError where a gradient that is compressed is missing, or where there is another; ShapeError or
  /// DTypeError where one has another form.
  void check_restore(const StateDict& source) const override;
  /// On each rank, with the same source. On another number of nodes each gets the mean of what they had
  /// left, which adds the same to what is reduced.
  void restore(const StateDict& source) override;

 private:
  friend class DataParallel;
  friend class StepInReduction;
  class [[gnu::visibility("hidden")]] Engine;
  explicit GradientReducer(std::unique_ptr<Engine> engine);
  std::unique_ptr<Engine> engine_;
};

}  // namespace lockstep

#pragma GCC visibility pop
