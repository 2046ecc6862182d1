/* Optimizers that are combined, and steps within backward and reduction. */
#include "check.h"

enum { in = 3, out = 2 };

/* A linear model, and what trains it. */
struct training {
  lockstep_model model;
  lockstep_parameters parameters;
  lockstep_replica replica;
  lockstep_reducer reducer;
};

static void start(struct training* own, lockstep_communicator ranks,
                  const lockstep_option* options) {
  OK(lockstep_model_create(&own->model));
  OK(lockstep_model_add(own->model, "linear",
                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", in), LOCKSTEP_NUMBER("out", out),
                                         LOCKSTEP_WORD("dtype", "f64"))));
  OK(lockstep_model_initialize(own->model, 5));
  OK(lockstep_model_parameters(own->model, &own->parameters));
  OK(lockstep_replica_create(own->model, ranks, options, &own->replica));
  OK(lockstep_replica_reducer(own->replica, &own->reducer));
}

static void backward(struct training* own, int step) {
  double x[4 * in], t[4 * out];
  for (int i = 0; i < 4 * in; ++i) x[i] = sin(i + 10 * own_rank + 100 * step);
  for (int i = 0; i < 4 * out; ++i) t[i] = cos(i + 10 * own_rank + 100 * step);
  const lockstep_array inputs = array_f64(x, 2, 4, in), targets = array_f64(t, 2, 4, out);
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
  OK(lockstep_replica_backward(own->replica, &inputs, &targets, &loss, NULL));
}

static void check_same_values(struct training* a, struct training* b) {
  static const char* const names[] = {"0.weight", "0.bias"};
  for (int i = 0; i < 2; ++i) {
    lockstep_array first, second;
    OK(lockstep_parameters_value(a->parameters, names[i], &first));
    OK(lockstep_parameters_value(b->parameters, names[i], &second));
    const size_t size = sizeof(double) * (i == 0 ? in * out : out);
    CHECK(memcmp(first.data, second.data, size) == 0);
  }
}

static void stop(struct training* own) {
  void* all[] = {own->reducer, own->replica, own->parameters, own->model};
  for (size_t i = 0; i < sizeof(all) / sizeof(*all); ++i) OK(lockstep_free(all[i]));
}

static const lockstep_option adam[] = {LOCKSTEP_NUMBER("lr", 0.1), {NULL, 0, NULL}};

static void a_backward_steps_as_an_optimizer_does_after_it(lockstep_communicator ranks) {
  struct training own, reference;
  lockstep_optimizer optimizer, expected;
  lockstep_stepping stepping;
  start(&own, ranks, NULL);
  start(&reference, ranks, NULL);
  OK(lockstep_optimizer_create(own.parameters, "Adam", adam, &optimizer));
  OK(lockstep_optimizer_create(reference.parameters, "Adam", adam, &expected));
  OK(lockstep_stepping_create(optimizer, NULL, NULL, &stepping));
  for (int step = 0; step < 3; ++step) {
    backward(&own, step);
    OK(lockstep_optimizer_zero_gradients(expected));
    backward(&reference, step);
    OK(lockstep_optimizer_step(expected, NULL, NULL));
    check_same_values(&own, &reference);
    int has = -1;
    OK(lockstep_parameters_has_gradient(own.parameters, "0.weight", &has));
    CHECK(has == 0);
  }
  lockstep_stepping second;
  FAILS(lockstep_stepping_create(optimizer, NULL, NULL, &second), LOCKSTEP_ERROR_STATE, "");
  OK(lockstep_free(optimizer)); /* which the stepping keeps */
  backward(&own, 3);
  OK(lockstep_free(stepping));
  OK(lockstep_free(expected));
  stop(&own);
  stop(&reference);
}

static void a_reduction_steps_as_an_optimizer_does_after_it(lockstep_communicator ranks) {
  struct training own, reference;
  lockstep_optimizer optimizer, expected;
  lockstep_stepping stepping;
  start(&own, ranks, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("keep_gradients", 0)));
  start(&reference, ranks, NULL);
  OK(lockstep_optimizer_create_sharded(own.parameters, "Adam", adam, ranks, &optimizer));
  OK(lockstep_optimizer_create(reference.parameters, "Adam", adam, &expected));
  OK(lockstep_stepping_create(optimizer, own.reducer, NULL, &stepping));
  for (int step = 0; step < 3; ++step) {
    backward(&own, step);
    OK(lockstep_optimizer_zero_gradients(expected));
    backward(&reference, step);
    OK(lockstep_optimizer_step(expected, NULL, NULL));
    check_same_values(&own, &reference);
  }
  lockstep_stepping second = NULL;
  FAILS(lockstep_stepping_create(expected, reference.reducer, NULL, &second), LOCKSTEP_ERROR_OPTION,
        "sharded");
  FAILS(lockstep_stepping_create(optimizer, own.reducer,
                                 LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER(own_rank ? "x" : "lr", 1)),
                                 &second),
        LOCKSTEP_ERROR_OPTION, "no option");
  CHECK(second == NULL);
  void* all[] = {stepping, optimizer, expected};
  for (size_t i = 0; i < 3; ++i) OK(lockstep_free(all[i]));
  stop(&own);
  stop(&reference);
}

static void combined_optimizers_step_together(lockstep_communicator ranks) {
  struct training own, reference;
  start(&own, ranks, NULL);
  start(&reference, ranks, NULL);
  lockstep_optimizer weights, biases, both, expected[2];
  const lockstep_option* of_weights =
      LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "*.weight"), LOCKSTEP_NUMBER("lr", 0.1));
  const lockstep_option* of_biases =
      LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "*.bias"), LOCKSTEP_NUMBER("lr", 0.2));
  OK(lockstep_optimizer_create(own.parameters, "Adam", of_weights, &weights));
  OK(lockstep_optimizer_create(own.parameters, "SGD", of_biases, &biases));
  OK(lockstep_optimizer_create(reference.parameters, "Adam", of_weights, &expected[0]));
  OK(lockstep_optimizer_create(reference.parameters, "SGD", of_biases, &expected[1]));
  const char* const names[] = {"w", "b"};
  const lockstep_optimizer members[] = {weights, biases};
  OK(lockstep_optimizer_combine(2, names, members, &both));
  OK(lockstep_free(weights)); /* the combined one keeps its members */
  OK(lockstep_free(biases));
  for (int step = 0; step < 3; ++step) {
    OK(lockstep_optimizer_zero_gradients(both));
    OK(lockstep_parameters_zero_gradients(reference.parameters));
    backward(&own, step);
    backward(&reference, step);
    OK(lockstep_optimizer_step(both, NULL, NULL));
    for (int i = 0; i < 2; ++i) OK(lockstep_optimizer_step(expected[i], NULL, NULL));
    check_same_values(&own, &reference);
  }
  double lr = 0;
  OK(lockstep_optimizer_get(both, "b.0", "lr", &lr));
  CHECK(lr == 0.2);
  lockstep_array slot;
  OK(lockstep_optimizer_slot(both, "w.0.weight", "exp_avg", &slot));
  CHECK(slot.extents[0] == out && slot.extents[1] == in);
  lockstep_optimizer none = NULL;
  FAILS(lockstep_optimizer_combine(0, names, expected, &none), LOCKSTEP_ERROR_OPTION, "found 0");
  FAILS(lockstep_optimizer_combine(2, NULL, expected, &none), LOCKSTEP_ERROR_OPTION, "names");
  const char* const twice[] = {"w", "w"};
  FAILS(lockstep_optimizer_combine(2, twice, expected, &none), LOCKSTEP_ERROR_NAME, "w");
  CHECK(none == NULL);
  void* all[] = {both, expected[0], expected[1]};
  for (size_t i = 0; i < 3; ++i) OK(lockstep_free(all[i]));
  stop(&own);
  stop(&reference);
}

int main(int argc, char** argv) {
  begin(&argc, &argv);
  lockstep_communicator ranks;
  OK(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks));
  RUN(a_backward_steps_as_an_optimizer_does_after_it, ranks);
  RUN(a_reduction_steps_as_an_optimizer_does_after_it, ranks);
  RUN(combined_optimizers_step_together, ranks);
  OK(lockstep_communicator_close(ranks));
  OK(lockstep_free(ranks));
  return end();
}
