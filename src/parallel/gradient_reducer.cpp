#include "lockstep/parallel/gradient_reducer.hpp"

#include <utility>

#include "parallel/reducer_engine.hpp"

namespace lockstep {

GradientReducer::GradientReducer(std::vector<NamedParameter> parameters,
                                 const Communicator& communicator,
                                 const GradientReducerOptions& options)
    : engine_(std::make_unique<Engine>(std::move(parameters), communicator, options)) {}
GradientReducer::GradientReducer(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}
GradientReducer::~GradientReducer() = default;
GradientReducer::GradientReducer(GradientReducer&&) noexcept = default;
GradientReducer& GradientReducer::operator=(GradientReducer&&) noexcept = default;

const Communicator& GradientReducer::communicator() const noexcept {
  return engine_->communicator();
}

bool GradientReducer::shared() const noexcept { return engine_->shared(); }

void GradientReducer::set_weight(double weight) { engine_->set_weight(weight); }

void GradientReducer::mark_ready(const Parameter& parameter) { engine_->mark_ready(parameter); }

void GradientReducer::finish() { engine_->reduce(); }

std::shared_ptr<const void> GradientReducer::no_sync() { return engine_->defer(); }

double GradientReducer::waited() const noexcept { return engine_->waited(); }

void GradientReducer::discard() { engine_->discard(); }

StateDict GradientReducer::state_dict() const { return engine_->state_dict(); }

void GradientReducer::check_restore(const StateDict& source) const {
  engine_->check_restore(source);
}

void GradientReducer::restore(const StateDict& source) { engine_->restore(source); }

}  // namespace lockstep
