/* The whole road of the C interface: a model, its replicas, an optimizer, training and inference.
 * Expected numbers are computed here, for a linear model whose gradients have a closed form. */
#include "check.h"

enum { in = 3, out = 2 };

/* This rank's samples: rank r has r + 1, with the last of several ranks having none. */
static int sample_count(int rank) {
  return rank_count > 1 && rank == rank_count - 1 ? 0 : rank + 1;
}

static double number(int rank, int sample, int i) { return sin(1.0 + 17 * rank + 5 * sample + i); }

static void fill_batch(int rank, double* x, double* t) {
  for (int s = 0; s < sample_count(rank); ++s) {
    for (int i = 0; i < in; ++i) x[s * in + i] = number(rank, s, i);
    for (int o = 0; o < out; ++o) t[s * out + o] = number(rank, s, 100 + o);
  }
}

/* The gradient of the mean over the samples of all ranks of the mean over outputs of (W x + b -
 * t)². */
static void expected_gradient(const double* w, const double* b, double* gw, double* gb) {
  memset(gw, 0, sizeof(double) * in * out);
  memset(gb, 0, sizeof(double) * out);
  int all = 0;
  double x[16 * in], t[16 * out];
  for (int rank = 0; rank < rank_count; ++rank) all += sample_count(rank);
  for (int rank = 0; rank < rank_count; ++rank) {
    fill_batch(rank, x, t);
    for (int s = 0; s < sample_count(rank); ++s) {
      for (int o = 0; o < out; ++o) {
        double y = b[o];
        for (int i = 0; i < in; ++i) y += w[o * in + i] * x[s * in + i];
        const double d = 2 * (y - t[s * out + o]) / (out * all);
        gb[o] += d;
        for (int i = 0; i < in; ++i) gw[o * in + i] += d * x[s * in + i];
      }
    }
  }
}

/* The mean squared error by a function of the caller's. */
static int own_loss(void* context, const lockstep_array* outputs, const lockstep_array* targets,
                    void* gradient, double* loss) {
  ++*(int*)context;
  const double *y = outputs->data, *t = targets->data;
  double* g = gradient;
  const int64_t size = outputs->extents[0] * outputs->extents[1];
  *loss = 0;
  for (int64_t i = 0; i < size; ++i) {
    *loss += (y[i] - t[i]) * (y[i] - t[i]) / (double)size;
    g[i] = 2 * (y[i] - t[i]) / (double)size;
  }
  return 0;
}

static int failing_loss(void* context, const lockstep_array* outputs, const lockstep_array* targets,
                        void* gradient, double* loss) {
  (void)context, (void)outputs, (void)targets, (void)gradient, (void)loss;
  return own_rank == 0 ? 7 : 0;
}

static lockstep_model linear_model(void) {
  lockstep_model model;
  OK(lockstep_model_create(&model));
  OK(lockstep_model_add(model, "linear",
                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", in), LOCKSTEP_NUMBER("out", out),
                                         LOCKSTEP_WORD("dtype", "f64"))));
  OK(lockstep_model_initialize(model, 5));
  return model;
}

static void trains_as_by_hand(lockstep_communicator ranks, const lockstep_loss* loss) {
  lockstep_model model = linear_model();
  lockstep_replica replica;
  OK(lockstep_replica_create(model, ranks, NULL, &replica));
  lockstep_parameters parameters;
  OK(lockstep_model_parameters(model, &parameters));
  int64_t count;
  OK(lockstep_parameters_count(parameters, &count));
  CHECK(count == 2);
  const char* name;
  OK(lockstep_parameters_name(parameters, 1, &name));
  CHECK(strcmp(name, "0.bias") == 0);
  lockstep_optimizer optimizer;
  OK(lockstep_optimizer_create(parameters, "SGD", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.5)),
                               &optimizer));

  double x[16 * in], t[16 * out];
  fill_batch(own_rank, x, t);
  const lockstep_array inputs = array_f64(x, 2, sample_count(own_rank), in);
  const lockstep_array targets = array_f64(t, 2, sample_count(own_rank), out);
  for (int step = 0; step < 3; ++step) {
    lockstep_array w, b, g;
    OK(lockstep_parameters_value(parameters, "0.weight", &w));
    OK(lockstep_parameters_value(parameters, "0.bias", &b));
    CHECK(w.dtype == LOCKSTEP_F64 && w.rank == 2 && w.extents[0] == out && w.extents[1] == in);
    double before[in * out], bias[out], gw[in * out], gb[out];
    memcpy(before, w.data, sizeof(before));
    memcpy(bias, b.data, sizeof(bias));
    expected_gradient(before, bias, gw, gb);

    OK(lockstep_optimizer_zero_gradients(optimizer));
    int has_gradient = 1;
    OK(lockstep_parameters_has_gradient(parameters, "0.weight", &has_gradient));
    CHECK(has_gradient == 0);
    double mean_loss = -1;
    /* A rank without samples may also give no arrays at all. */
    if (sample_count(own_rank) == 0 && step > 0) {
      OK(lockstep_replica_backward(replica, NULL, NULL, loss, &mean_loss));
    } else {
      OK(lockstep_replica_backward(replica, &inputs, &targets, loss, &mean_loss));
    }
    CHECK(mean_loss >= 0);
    OK(lockstep_parameters_read_gradient(parameters, "0.weight", &g));
    for (int i = 0; i < in * out; ++i) CHECK(is_near(((double*)g.data)[i], gw[i], 1e-12));
    lockstep_step_report report;
    OK(lockstep_optimizer_step(optimizer, NULL, &report));
    CHECK(report.applied == 1 && report.empty == 0 && isnan(report.gradient_norm));
    for (int i = 0; i < in * out; ++i)
      CHECK(is_near(((double*)w.data)[i], before[i] - 0.5 * gw[i], 1e-12));
    for (int i = 0; i < out; ++i)
      CHECK(is_near(((double*)b.data)[i], bias[i] - 0.5 * gb[i], 1e-12));
  }
  /* Freed in an order that makes no sense. */
  OK(lockstep_free(model));
  OK(lockstep_free(parameters));
  OK(lockstep_free(replica));
  OK(lockstep_free(optimizer));
}

static void predicts(lockstep_communicator ranks) {
  (void)ranks;
  lockstep_model model = linear_model();
  lockstep_parameters parameters;
  OK(lockstep_model_parameters(model, &parameters));
  lockstep_array w, b;
  OK(lockstep_parameters_value(parameters, "0.weight", &w));
  OK(lockstep_parameters_value(parameters, "0.bias", &b));
  double x[16 * in], t[16 * out], y[16 * out];
  fill_batch(0, x, t);
  const lockstep_array inputs = array_f64(x, 2, 1, in), outputs = array_f64(y, 2, 1, out);
  OK(lockstep_model_predict(model, &inputs, &outputs));
  for (int o = 0; o < out; ++o) {
    double expected = ((double*)b.data)[o];
    for (int i = 0; i < in; ++i) expected += ((double*)w.data)[o * in + i] * x[i];
    CHECK(is_near(y[o], expected, 1e-12));
  }
  y[0] = 42;
  const lockstep_array wrong = array_f64(y, 2, out, 1), none = array_f64(NULL, 2, 0, in),
                       no_outputs = array_f64(NULL, 2, 0, out);
  FAILS(lockstep_model_predict(model, &inputs, &wrong), LOCKSTEP_ERROR_SHAPE, "outputs");
  FAILS(lockstep_model_predict(model, &wrong, &outputs), LOCKSTEP_ERROR_SHAPE, "");
  CHECK(y[0] == 42);
  OK(lockstep_model_predict(model, &none, &no_outputs));
  FAILS(lockstep_model_add(model, "tanh", NULL), LOCKSTEP_ERROR_STATE, "in use already");
  OK(lockstep_free(parameters));
  OK(lockstep_free(model));
}

/* A function of two numbers, learned from a reservoir that ranks fill unevenly. */
static void trains_for_a_time(lockstep_communicator ranks) {
  lockstep_model model;
  OK(lockstep_model_create(&model));
  OK(lockstep_model_add(model, "linear",
                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 2), LOCKSTEP_NUMBER("out", 16))));
  OK(lockstep_model_add(model, "tanh", NULL));
  OK(lockstep_model_add(model, "linear",
                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 16), LOCKSTEP_NUMBER("out", 1))));
  OK(lockstep_model_initialize(model, 1));
  lockstep_replica replica;
  OK(lockstep_replica_create(model, ranks, LOCKSTEP_OPTIONS(LOCKSTEP_WORD("reduction", "mean")),
                             &replica));
  lockstep_parameters parameters;
  OK(lockstep_model_parameters(model, &parameters));
  lockstep_optimizer optimizer;
  OK(lockstep_optimizer_create(
      parameters, "Adam",
      LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.01), LOCKSTEP_NUMBER("amsgrad", 1)), &optimizer));
  lockstep_schedule cosine, warm;
  lockstep_scheduler scheduler;
  OK(lockstep_schedule_create("cosine", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("steps", 100000)),
                              &cosine));
  OK(lockstep_schedule_warm_up(10, 0.1, cosine, &warm));
  OK(lockstep_scheduler_create(optimizer, warm, NULL, NULL, &scheduler));
  double lr = 0;
  OK(lockstep_optimizer_get(optimizer, NULL, "lr", &lr));
  CHECK(is_near(lr, 0.001, 1e-12));
  const lockstep_array input = {LOCKSTEP_F32, 1, {2}, NULL}, target = {LOCKSTEP_F32, 1, {1}, NULL};
  lockstep_reservoir reservoir;
  OK(lockstep_reservoir_create(ranks, 400, &input, &target,
                               LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("seed", 3)), &reservoir));
  lockstep_trainer trainer;
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
  OK(lockstep_trainer_create(replica, optimizer, &loss, scheduler, reservoir, 32, &trainer));
  lockstep_train_report report = {0};
  FAILS(lockstep_trainer_train(trainer, 1, &report), LOCKSTEP_ERROR_STATE, "no rank has seen any");
  CHECK(lockstep_last_error_is_collective());

  /* Only rank 0 has anything to show. */
  float x[2 * 200], y[200];
  for (int i = 0; i < 200 && own_rank == 0; ++i) {
    x[2 * i] = (float)sin(3 * i), x[2 * i + 1] = (float)cos(5 * i);
    y[i] = x[2 * i] * x[2 * i + 1];
  }
  const int64_t shown = own_rank == 0 ? 200 : 0;
  const lockstep_array inputs = {LOCKSTEP_F32, 2, {shown, 2}, x},
                       targets = {LOCKSTEP_F32, 2, {shown, 1}, y};
  OK(lockstep_reservoir_add(reservoir, &inputs, &targets));
  int64_t seen, size;
  OK(lockstep_reservoir_seen(reservoir, &seen));
  OK(lockstep_reservoir_size(reservoir, &size));
  CHECK(seen == shown && size == (own_rank == 0 ? (rank_count == 1   ? 200
                                                   : rank_count == 2 ? 200
                                                                     : 400 / rank_count)
                                                : 0));
  lockstep_array some_inputs, some_targets;
  OK(lockstep_reservoir_draw(reservoir, 8, &some_inputs, &some_targets));
  CHECK(some_inputs.extents[0] == (own_rank == 0 ? 8 : 0) &&
        some_targets.extents[0] == some_inputs.extents[0]);

  OK(lockstep_trainer_train(trainer, 10, &report));
  const double first = report.loss;
  CHECK(report.steps == 10 && first > 0);
  int64_t total = 10;
  for (int call = 0; call < 10; ++call) {
    OK(lockstep_trainer_train_for(trainer, 0.01, &report));
    int64_t most = report.steps;
    MPI_Allreduce(MPI_IN_PLACE, &most, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
    CHECK(most == report.steps);
    total += report.steps;
  }
  for (int call = 0; call < 40 && !(report.loss < first / 20); ++call) {
    OK(lockstep_trainer_train(trainer, 100, &report));
    total += 100;
  }
  CHECK(report.loss < first / 20);
  int64_t last_step;
  OK(lockstep_scheduler_last_step(scheduler, &last_step));
  CHECK(last_step == total);
  FAILS(lockstep_trainer_train_for(trainer, -1, &report), LOCKSTEP_ERROR_OPTION, "-1");
  double mean_loss = -1;
  OK(lockstep_trainer_step(trainer, &inputs, &targets, &mean_loss));
  CHECK(own_rank != 0 || (mean_loss > 0 && mean_loss < first));

  void* all[] = {trainer,   reservoir,  scheduler, warm, cosine,
                 optimizer, parameters, replica,   model};
  for (size_t i = 0; i < sizeof(all) / sizeof(*all); ++i) OK(lockstep_free(all[i]));
}

static int count_down(void* context, double* loss, int64_t* samples) {
  int* left = context;
  *loss = *left;
  *samples = 1;
  return (*left)-- > 0 ? 0 : 3;
}

static void runs_the_callers_own_steps(lockstep_communicator ranks) {
  int left = 4;
  lockstep_trainer trainer;
  OK(lockstep_trainer_create_function(ranks, count_down, &left, &trainer));
  lockstep_train_report report = {0};
  OK(lockstep_trainer_train(trainer, 3, &report));
  CHECK(report.steps == 3 && report.loss == 3);
  FAILS(lockstep_trainer_train(trainer, 3, &report), LOCKSTEP_ERROR_CALLBACK, "3");
  FAILS(lockstep_trainer_step(trainer, NULL, NULL, NULL), LOCKSTEP_ERROR_STATE, "own step");
  OK(lockstep_free(trainer));
}

static void tells_all_ranks_what_one_does_wrong(lockstep_communicator ranks) {
  lockstep_model model = linear_model();
  lockstep_replica replica;
  OK(lockstep_replica_create(model, ranks, NULL, &replica));
  double x[16 * in], t[16 * out];
  fill_batch(0, x, t);
  const lockstep_array inputs = array_f64(x, 2, 1, in), targets = array_f64(t, 2, 1, out);
  const lockstep_array wrong = array_f64(t, 2, own_rank == 0 ? 2 : 1, out);
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL}, bad = {NULL, failing_loss, NULL};
  const lockstep_loss unknown = {own_rank == 0 ? "mean_squared_eror" : loss.name, NULL, NULL};
  double mean_loss = -1;
  FAILS(lockstep_replica_backward(replica, &inputs, &wrong, &loss, &mean_loss),
        LOCKSTEP_ERROR_SHAPE, "as many samples");
  FAILS(lockstep_replica_backward(replica, own_rank == 0 ? NULL : &inputs, &targets, &loss, NULL),
        LOCKSTEP_ERROR_OPTION, "inputs");
  FAILS(lockstep_replica_backward(replica, &inputs, &targets, &bad, NULL), LOCKSTEP_ERROR_CALLBACK,
        "returned 7");
  CHECK(strstr(lockstep_last_error(), "rank 0") != NULL);
  FAILS(lockstep_replica_backward(replica, &inputs, &targets, &unknown, NULL),
        LOCKSTEP_ERROR_OPTION, "eror");
  FAILS(lockstep_replica_create(own_rank == 0 ? NULL : model, ranks, NULL, &replica),
        LOCKSTEP_ERROR_HANDLE, "NULL");
  FAILS(lockstep_replica_create(model, ranks, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("buckets", 1)),
                                &replica),
        LOCKSTEP_ERROR_OPTION, "no option 'buckets'");
  CHECK(mean_loss == -1);
  OK(lockstep_replica_backward(replica, &inputs, &targets, &loss, &mean_loss));
  OK(lockstep_free(replica));
  OK(lockstep_free(model));
}

static void accumulates(lockstep_communicator ranks) {
  lockstep_model model = linear_model();
  lockstep_replica replica;
  lockstep_reducer reducer;
  lockstep_parameters parameters;
  OK(lockstep_replica_create(model, ranks, NULL, &replica));
  OK(lockstep_replica_reducer(replica, &reducer));
  OK(lockstep_model_parameters(model, &parameters));
  double x[16 * in], t[16 * out], once[in * out];
  fill_batch(0, x, t);
  const lockstep_array inputs = array_f64(x, 2, 1, in), targets = array_f64(t, 2, 1, out);
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
  lockstep_array g;
  OK(lockstep_replica_backward(replica, &inputs, &targets, &loss, NULL));
  OK(lockstep_parameters_read_gradient(parameters, "0.weight", &g));
  memcpy(once, g.data, sizeof(once));
  OK(lockstep_parameters_zero_gradients(parameters));
  OK(lockstep_reducer_set_accumulating(reducer, 1));
  OK(lockstep_replica_backward(replica, &inputs, &targets, &loss, NULL));
  OK(lockstep_reducer_set_accumulating(reducer, 0));
  OK(lockstep_replica_backward(replica, &inputs, &targets, &loss, NULL));
  OK(lockstep_parameters_read_gradient(parameters, "0.weight", &g));
  for (int i = 0; i < in * out; ++i) CHECK(is_near(((double*)g.data)[i], once[i], 1e-12));
  double waited = -1;
  OK(lockstep_reducer_waited(reducer, &waited));
  CHECK(waited >= 0);
  /* The replica is gone, and what it gave lives on. */
  OK(lockstep_free(replica));
  OK(lockstep_reducer_waited(reducer, &waited));
  OK(lockstep_free(reducer));
  OK(lockstep_free(parameters));
  OK(lockstep_free(model));
}

static void trains_by_a_loss_of_the_callers(lockstep_communicator ranks) {
  int calls = 0;
  const lockstep_loss own = {NULL, own_loss, &calls};
  trains_as_by_hand(ranks, &own);
  CHECK(calls == (sample_count(own_rank) == 0 ? 0 : 3));
}

int main(int argc, char** argv) {
  begin(&argc, &argv);
  lockstep_communicator ranks;
  OK(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks));
  int rank, size;
  OK(lockstep_communicator_rank(ranks, &rank));
  OK(lockstep_communicator_size(ranks, &size));
  CHECK(rank == own_rank && size == rank_count);
  const lockstep_loss named = {"mean_squared_error", NULL, NULL};
  RUN(trains_as_by_hand, ranks, &named);
  RUN(trains_by_a_loss_of_the_callers, ranks);
  RUN(predicts, ranks);
  RUN(trains_for_a_time, ranks);
  RUN(runs_the_callers_own_steps, ranks);
  RUN(tells_all_ranks_what_one_does_wrong, ranks);
  RUN(accumulates, ranks);
  OK(lockstep_communicator_close(ranks));
  OK(lockstep_free(ranks));
  return end();
}
