#include "field_rows.hpp"

#include <cstdint>

using namespace lockstep;

namespace {

Tensor rows_of(const Decomposition& cells) {
  return Tensor::zeros({std::int64_t{cells.slab().rows} * cells.cells()}, DType::f64);
}

TensorPart part_of(const Decomposition& cells, const Tensor& rows) {
  const std::int64_t n = cells.cells();
  return {.shape = {n, n}, .begin = cells.slab().row * n, .numbers = rows};
}

}  // namespace

FieldRows::FieldRows(const Decomposition& cells)
    : cells_(&cells),
      temperature_(rows_of(cells)),
      fuel_(rows_of(cells)),
      state_({{"temperature", part_of(cells, temperature_)}, {"fuel", part_of(cells, fuel_)}}) {}

void FieldRows::take(const Fields& fields) {
  cells_->to_rows(fields.temperature, temperature_.data<double>());
  cells_->to_rows(fields.fuel, fuel_.data<double>());
}

void FieldRows::give(Fields& fields) const {
  cells_->from_rows(temperature_.data<double>(), fields.temperature);
  cells_->from_rows(fuel_.data<double>(), fields.fuel);
}
