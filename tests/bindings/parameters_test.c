/* Arrays of the caller's as parameters, and the reduction of gradients that the caller computes. */
#include "check.h"

/* The mean of 0 … rank_count - 1, and with weights rank + 1. */
static double mean_rank(void) { return (rank_count - 1) / 2.0; }

static lockstep_array array_f32(float* data, int rank, int64_t a, int64_t b) {
  const lockstep_array array = {LOCKSTEP_F32, rank, {a, b}, data};
  return array;
}

static void borrowed_arrays_stay_where_they_are(lockstep_communicator ranks) {
  double field[6] = {1, 2, 3, 4, 5, 6};
  float other[4] = {10, 20, 30, 40};
  lockstep_array arrays[2] = {array_f64(field, 2, 2, 3), array_f32(other, 1, 4, 0)};
  lockstep_parameters parameters;
  lockstep_reducer reducer;
  lockstep_optimizer optimizer;
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "field", &arrays[0]));
  OK(lockstep_parameters_borrow(parameters, "other", &arrays[1]));
  OK(lockstep_reducer_create(parameters, ranks, NULL, &reducer));
  OK(lockstep_optimizer_create(parameters, "SGD", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.5)),
                               &optimizer));
  for (int step = 1; step <= 2; ++step) {
    lockstep_array value, gradient, small;
    OK(lockstep_parameters_value(parameters, "field", &value));
    CHECK(value.data == field && value.rank == 2 && value.extents[1] == 3);
    OK(lockstep_parameters_gradient(parameters, "field", &gradient));
    OK(lockstep_parameters_gradient(parameters, "other", &small));
    CHECK(gradient.dtype == LOCKSTEP_F64 && small.dtype == LOCKSTEP_F32);
    for (int i = 0; i < 6; ++i) ((double*)gradient.data)[i] = own_rank * (i + 1);
    for (int i = 0; i < 4; ++i) ((float*)small.data)[i] = (float)own_rank;
    OK(lockstep_reducer_mark_ready(reducer, "other"));
    OK(lockstep_reducer_mark_ready(reducer, "field"));
    OK(lockstep_reducer_finish(reducer));
    OK(lockstep_parameters_read_gradient(parameters, "field", &gradient));
    for (int i = 0; i < 6; ++i) {
      CHECK(is_near(((double*)gradient.data)[i], mean_rank() * (i + 1), 1e-14));
    }
    OK(lockstep_optimizer_step(optimizer, NULL, NULL));
    for (int i = 0; i < 6; ++i) {
      CHECK(is_near(field[i], i + 1 - 0.5 * step * mean_rank() * (i + 1), 1e-14));
    }
    for (int i = 0; i < 4; ++i)
      CHECK(is_near(other[i], 10 * (i + 1) - 0.5 * step * mean_rank(), 1e-6));
    OK(lockstep_optimizer_zero_gradients(optimizer));
  }
  OK(lockstep_free(reducer));
  lockstep_array value;
  OK(lockstep_parameters_value(parameters, "field", &value));
  CHECK(value.data == field);
  OK(lockstep_free(parameters));
  OK(lockstep_free(optimizer));
}

static void ranks_count_by_their_weight(lockstep_communicator ranks) {
  double field[3] = {0, 0, 0};
  const lockstep_array array = array_f64(field, 1, 3, 0);
  lockstep_parameters parameters;
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "field", &array));
  double sum = 0, weights = 0;
  for (int rank = 0; rank < rank_count; ++rank) sum += rank * (rank + 1.0), weights += rank + 1.0;
  for (int is_sum = 0; is_sum < 2; ++is_sum) {
    lockstep_reducer reducer;
    lockstep_array gradient;
    OK(lockstep_reducer_create(parameters, ranks,
                               LOCKSTEP_OPTIONS(LOCKSTEP_WORD("reduction", is_sum ? "sum" : "mean"),
                                                LOCKSTEP_NUMBER("bucket_bytes", 1000)),
                               &reducer));
    OK(lockstep_reducer_set_weight(reducer, own_rank + 1));
    OK(lockstep_parameters_gradient(parameters, "field", &gradient));
    for (int i = 0; i < 3; ++i) ((double*)gradient.data)[i] = own_rank;
    OK(lockstep_reducer_mark_ready(reducer, "field"));
    OK(lockstep_reducer_finish(reducer));
    OK(lockstep_parameters_read_gradient(parameters, "field", &gradient));
    CHECK(is_near(((double*)gradient.data)[2], is_sum ? sum : sum / weights, 1e-14));
    OK(lockstep_parameters_zero_gradients(parameters));
    OK(lockstep_free(reducer));
  }
  OK(lockstep_free(parameters));
}

static void copied_arrays_belong_to_lockstep(lockstep_communicator ranks) {
  (void)ranks;
  double numbers[2] = {1, 2};
  const lockstep_array array = array_f64(numbers, 1, 2, 0);
  const lockstep_array section = array_f64(numbers, LOCKSTEP_NOT_CONTIGUOUS, 2, 0);
  lockstep_parameters parameters;
  lockstep_array value;
  OK(lockstep_parameters_create(&parameters));
  FAILS(lockstep_parameters_add(parameters, "own", &section), LOCKSTEP_ERROR_SHAPE,
        "'own': expected contiguous memory");
  OK(lockstep_parameters_add(parameters, "own", &array));
  numbers[0] = 100;
  OK(lockstep_parameters_value(parameters, "own", &value));
  CHECK(value.data != numbers && ((double*)value.data)[0] == 1);
  OK(lockstep_parameters_set_requires_gradient(parameters, "own", 0));
  lockstep_optimizer optimizer;
  OK(lockstep_optimizer_create(parameters, "SGD", NULL, &optimizer));
  lockstep_array gradient;
  OK(lockstep_parameters_gradient(parameters, "own", &gradient));
  ((double*)gradient.data)[0] = 1e6;
  lockstep_step_report report;
  OK(lockstep_optimizer_step(optimizer, NULL, &report));
  CHECK(((double*)value.data)[0] == 1 && report.empty == 1);
  OK(lockstep_free(optimizer));
  OK(lockstep_free(parameters));
}

static void names_and_shapes_are_compared_over_ranks(lockstep_communicator ranks) {
  double numbers[4] = {0};
  const lockstep_array array = array_f64(numbers, 1, own_rank == 0 ? 4 : 3, 0);
  lockstep_parameters parameters;
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "field", &array));
  lockstep_reducer reducer = NULL;
  if (rank_count > 1) {
    FAILS(lockstep_reducer_create(parameters, ranks, NULL, &reducer), LOCKSTEP_ERROR_SHAPE,
          "field");
    CHECK(lockstep_last_error_is_collective() && reducer == NULL);
  }
  /* What one rank gets wrong in the arguments, all are told. */
  FAILS(lockstep_reducer_create(
            parameters, ranks,
            LOCKSTEP_OPTIONS(LOCKSTEP_WORD("wire", own_rank == 0 ? "fp8" : "full")), &reducer),
        LOCKSTEP_ERROR_OPTION, "full, fp16, bf16");
  FAILS(lockstep_reducer_create(own_rank == 0 ? NULL : parameters, ranks, NULL, &reducer),
        LOCKSTEP_ERROR_HANDLE, "list of parameters");
  CHECK(reducer == NULL);
  OK(lockstep_free(parameters));
}

static void gradients_are_marked_in_order(lockstep_communicator ranks) {
  double numbers[2] = {0};
  const lockstep_array array = array_f64(numbers, 1, 2, 0);
  lockstep_parameters parameters;
  lockstep_reducer reducer;
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "field", &array));
  OK(lockstep_reducer_create(parameters, ranks, NULL, &reducer));
  lockstep_array gradient;
  FAILS(lockstep_parameters_read_gradient(parameters, "field", &gradient), LOCKSTEP_ERROR_STATE,
        "");
  OK(lockstep_parameters_gradient(parameters, "field", &gradient));
  OK(lockstep_reducer_mark_ready(reducer, "field"));
  FAILS(lockstep_reducer_mark_ready(reducer, "field"), LOCKSTEP_ERROR_STATE, "field");
  FAILS(lockstep_reducer_mark_ready(reducer, "fields"), LOCKSTEP_ERROR_NAME, "field");
  OK(lockstep_reducer_finish(reducer));
  lockstep_reducer second;
  FAILS(lockstep_reducer_create(parameters, ranks, NULL, &second), LOCKSTEP_ERROR_STATE, "field");
  OK(lockstep_reducer_discard(reducer));
  OK(lockstep_free(reducer));
  OK(lockstep_reducer_create(parameters, ranks, NULL, &second));
  OK(lockstep_free(second));
  OK(lockstep_free(parameters));
}

static void bad_arrays_are_no_parameters(lockstep_communicator ranks) {
  (void)ranks;
  double numbers[4] = {1, 2, 3, 4};
  lockstep_parameters parameters;
  OK(lockstep_parameters_create(&parameters));
  lockstep_array array = array_f64(numbers, 1, 4, 0);
  OK(lockstep_parameters_borrow(parameters, "field", &array));
  FAILS(lockstep_parameters_borrow(parameters, "field", &array), LOCKSTEP_ERROR_NAME, "'field'");
  FAILS(lockstep_parameters_borrow(parameters, NULL, &array), LOCKSTEP_ERROR_OPTION, "name");
  FAILS(lockstep_parameters_borrow(parameters, "x", NULL), LOCKSTEP_ERROR_OPTION, "NULL");
  array.data = NULL;
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_OPTION, "NULL");
  array.data = (char*)numbers + 1;
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_OPTION, "address");
  array = array_f64(numbers, 9, 1, 1);
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_SHAPE, "found 9");
  array = array_f64(numbers, -1, 1, 1);
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_SHAPE, "found -1");
  array = array_f64(numbers, 2, -1, 1);
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_SHAPE, "-1");
  array = array_f64(numbers, 2, INT64_MAX, 2);
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_SHAPE, "");
  array = array_f64(numbers, 1, 4, 0);
  array.dtype = LOCKSTEP_I64;
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_DTYPE, "i64");
  array.dtype = (lockstep_dtype)77;
  FAILS(lockstep_parameters_borrow(parameters, "x", &array), LOCKSTEP_ERROR_OPTION, "77");
  int64_t count;
  OK(lockstep_parameters_count(parameters, &count));
  CHECK(count == 1);
  const char* name = NULL;
  FAILS(lockstep_parameters_name(parameters, 1, &name), LOCKSTEP_ERROR_OPTION, "found 1");
  FAILS(lockstep_parameters_name(parameters, -1, &name), LOCKSTEP_ERROR_OPTION, "found -1");
  CHECK(name == NULL);
  OK(lockstep_free(parameters));
}

int main(int argc, char** argv) {
  begin(&argc, &argv);
  lockstep_communicator ranks;
  OK(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks));
  RUN(borrowed_arrays_stay_where_they_are, ranks);
  RUN(ranks_count_by_their_weight, ranks);
  RUN(copied_arrays_belong_to_lockstep, ranks);
  RUN(names_and_shapes_are_compared_over_ranks, ranks);
  RUN(gradients_are_marked_in_order, ranks);
  RUN(bad_arrays_are_no_parameters, ranks);
  OK(lockstep_communicator_close(ranks));
  OK(lockstep_free(ranks));
  return end();
}
