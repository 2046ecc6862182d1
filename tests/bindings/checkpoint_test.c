/* Checkpoints from C: objects, arrays, ranges of distributed arrays and numbers, in one file. */
#include "check.h"

static void remove_file(const char* name) {
  MPI_Barrier(MPI_COMM_WORLD);
  if (own_rank == 0) remove(own_path(name));
}

struct training {
  lockstep_model model;
  lockstep_parameters parameters;
  lockstep_replica replica;
  lockstep_optimizer optimizer;
  lockstep_schedule schedule;
  lockstep_scheduler scheduler;
  double field[4];
  int64_t step;
  double time;
  lockstep_items items;
};

static void start(struct training* own, lockstep_communicator ranks, uint64_t seed) {
  OK(lockstep_model_create(&own->model));
  OK(lockstep_model_add(own->model, "linear",
                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 2), LOCKSTEP_NUMBER("out", 3),
                                         LOCKSTEP_WORD("dtype", "f64"))));
  OK(lockstep_model_add(
      own->model, "batch_norm",
      LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("channels", 3), LOCKSTEP_WORD("dtype", "f64"))));
  OK(lockstep_model_initialize(own->model, seed));
  OK(lockstep_model_parameters(own->model, &own->parameters));
  OK(lockstep_replica_create(own->model, ranks, NULL, &own->replica));
  OK(lockstep_optimizer_create(own->parameters, "Adam",
                               LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.1)), &own->optimizer));
  OK(lockstep_schedule_create("exponential", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("gamma", 0.5)),
                              &own->schedule));
  OK(lockstep_scheduler_create(own->optimizer, own->schedule, NULL, NULL, &own->scheduler));
  for (int i = 0; i < 4; ++i) own->field[i] = (double)seed * (i + 1);
  own->step = (int64_t)seed;
  own->time = 0.5 * (double)seed;
  const lockstep_array array = array_f64(own->field, 2, 2, 2);
  OK(lockstep_items_create(&own->items));
  OK(lockstep_items_add(own->items, "model", own->model));
  OK(lockstep_items_add(own->items, "optimizer", own->optimizer));
  OK(lockstep_items_add(own->items, "scheduler", own->scheduler));
  OK(lockstep_items_add_array(own->items, "fields", "temperature", &array));
  OK(lockstep_items_add_integer(own->items, "progress", "step", &own->step));
  OK(lockstep_items_add_real(own->items, "progress", "time", &own->time));
}

static void make_step(struct training* own) {
  double x[8], t[12];
  for (int i = 0; i < 8; ++i) x[i] = sin(i + own_rank);
  for (int i = 0; i < 12; ++i) t[i] = cos(i * own_rank);
  const lockstep_array inputs = array_f64(x, 2, 4, 2), targets = array_f64(t, 2, 4, 3);
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
  OK(lockstep_optimizer_zero_gradients(own->optimizer));
  OK(lockstep_replica_backward(own->replica, &inputs, &targets, &loss, NULL));
  OK(lockstep_optimizer_step(own->optimizer, NULL, NULL));
  OK(lockstep_scheduler_step(own->scheduler, NULL));
  ++own->step;
}

static double first_weight(struct training* own) {
  lockstep_array w;
  OK(lockstep_parameters_value(own->parameters, "0.weight", &w));
  return ((double*)w.data)[0];
}

static void stop(struct training* own) {
  void* all[] = {own->items,   own->scheduler,  own->schedule, own->optimizer,
                 own->replica, own->parameters, own->model};
  for (size_t i = 0; i < sizeof(all) / sizeof(*all); ++i) OK(lockstep_free(all[i]));
}

static void a_loaded_run_goes_on_with_the_same_bits(lockstep_communicator ranks) {
  struct training one, other;
  start(&one, ranks, 1);
  make_step(&one);
  make_step(&one);
  OK(lockstep_checkpoint_save(own_path("run"), ranks, one.items));
  start(&other, ranks, 2);
  OK(lockstep_checkpoint_load(own_path("run"), ranks, other.items, NULL));
  CHECK(other.step == 3 && other.time == 0.5 && other.field[3] == 4);
  double lr = 0;
  OK(lockstep_optimizer_get(other.optimizer, NULL, "lr", &lr));
  CHECK(lr == 0.025);
  make_step(&one);
  make_step(&other);
  CHECK(first_weight(&one) == first_weight(&other));
  stop(&one);
  stop(&other);
  remove_file("run");
}

static void a_load_that_fails_changes_nothing(lockstep_communicator ranks) {
  struct training own;
  start(&own, ranks, 1);
  lockstep_items part;
  OK(lockstep_items_create(&part));
  OK(lockstep_items_add(part, "model", own.model));
  OK(lockstep_checkpoint_save(own_path("part"), ranks, part));
  const double before = first_weight(&own);
  FAILS(lockstep_checkpoint_load(own_path("part"), ranks, own.items, NULL),
        LOCKSTEP_ERROR_CHECKPOINT, "optimizer");
  FAILS(lockstep_checkpoint_load(own_path("none"), ranks, own.items, NULL),
        LOCKSTEP_ERROR_CHECKPOINT, "none");
  FAILS(lockstep_checkpoint_load(own_path("part"), ranks, part,
                                 LOCKSTEP_OPTIONS(LOCKSTEP_WORD("mode", "loose"))),
        LOCKSTEP_ERROR_OPTION, "strict, subset, partial");
  FAILS(lockstep_checkpoint_load(NULL, ranks, part, NULL), LOCKSTEP_ERROR_OPTION, "path");
  FAILS(lockstep_checkpoint_save(own_path("part"), ranks, own_rank == 0 ? NULL : part),
        LOCKSTEP_ERROR_HANDLE, "items");
  CHECK(first_weight(&own) == before && own.step == 1);
  OK(lockstep_checkpoint_load(own_path("part"), ranks, own.items,
                              LOCKSTEP_OPTIONS(LOCKSTEP_WORD("mode", "partial"))));
  OK(lockstep_free(part));
  stop(&own);
  remove_file("part");
}

/* A field of 12 numbers, of which rank r has a range; the first half of the ranks load what all
 * have saved. */
static void ranges_go_to_any_number_of_ranks(lockstep_communicator ranks) {
  const int64_t begin = 12 * own_rank / rank_count, after = 12 * (own_rank + 1) / rank_count;
  double numbers[12];
  for (int64_t i = begin; i < after; ++i) numbers[i - begin] = (double)(100 + i);
  lockstep_array whole = array_f64(numbers, 2, 3, 4);
  lockstep_items items;
  OK(lockstep_items_create(&items));
  OK(lockstep_items_add_range(items, "fields", "u", &whole, begin, after - begin));
  FAILS(lockstep_items_add_range(items, "fields", "v", &whole, begin, 13 - begin),
        LOCKSTEP_ERROR_SHAPE, "12 numbers");
  OK(lockstep_checkpoint_save(own_path("range"), ranks, items));
  OK(lockstep_free(items));

  const int members = (rank_count + 1) / 2;
  MPI_Comm half;
  MPI_Comm_split(MPI_COMM_WORLD, own_rank < members ? 0 : MPI_UNDEFINED, 0, &half);
  if (half != MPI_COMM_NULL) {
    lockstep_communicator few;
    OK(lockstep_communicator_create(half, NULL, &few));
    MPI_Comm_free(&half);
    const int64_t first = 12 * own_rank / members, last = 12 * (own_rank + 1) / members;
    memset(numbers, 0, sizeof(numbers));
    OK(lockstep_items_create(&items));
    OK(lockstep_items_add_range(items, "fields", "u", &whole, first, last - first));
    OK(lockstep_checkpoint_load(own_path("range"), few, items, NULL));
    for (int64_t i = first; i < last; ++i) CHECK(numbers[i - first] == (double)(100 + i));
    OK(lockstep_free(items));
    OK(lockstep_communicator_close(few));
    OK(lockstep_free(few));
  }
  remove_file("range");
}

static void a_manager_keeps_the_last_and_finds_the_newest(lockstep_communicator ranks) {
  struct training own;
  start(&own, ranks, 1);
  char folder[300];
  snprintf(folder, sizeof(folder), "%s", own_path("folder"));
  lockstep_manager manager;
  const lockstep_option* options =
      LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("every_steps", 2), LOCKSTEP_NUMBER("keep_last", 1),
                       LOCKSTEP_NUMBER("keep_best", 1), LOCKSTEP_WORD("best", "lowest"));
  OK(lockstep_manager_create(folder, ranks, own.items, options, &manager));
  int64_t step = 7;
  OK(lockstep_manager_load_latest(manager, &step));
  CHECK(step == -1);
  double saved_weight = 0;
  const double metrics[] = {9, 1, 5, 5, 5};
  for (int64_t i = 1; i <= 5; ++i) {
    make_step(&own);
    int saved = -1;
    OK(lockstep_manager_step(manager, i, &metrics[i - 1], &saved));
    CHECK(saved == (i % 2 == 0));
    if (i == 4) saved_weight = first_weight(&own);
  }
  int stops = -1;
  OK(lockstep_manager_stop_requested(manager, &stops));
  CHECK(stops == 0);
  OK(lockstep_manager_wait(manager));
  FAILS(lockstep_manager_save(manager, 3, NULL), LOCKSTEP_ERROR_STATE, "");
  OK(lockstep_free(manager));
  OK(lockstep_manager_create(folder, ranks, own.items, NULL, &manager));
  OK(lockstep_manager_load_best(manager, &step));
  CHECK(step == 2);
  OK(lockstep_manager_load_latest(manager, &step));
  CHECK(step == 4 && first_weight(&own) == saved_weight);
  FAILS(lockstep_manager_create(folder, ranks, own.items,
                                LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("keep_last", 0)), &manager),
        LOCKSTEP_ERROR_OPTION, "");
  OK(lockstep_free(manager));
  stop(&own);
  MPI_Barrier(MPI_COMM_WORLD);
  if (own_rank == 0) {
    char command[400];
    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    CHECK(system(command) == 0);
  }
}

static void items_have_names_of_their_own(lockstep_communicator ranks) {
  struct training own;
  start(&own, ranks, 1);
  const lockstep_array array = array_f64(own.field, 1, 4, 0);
  FAILS(lockstep_items_add(own.items, "model", own.optimizer), LOCKSTEP_ERROR_NAME, "'model'");
  FAILS(lockstep_items_add(own.items, "schedule", own.schedule), LOCKSTEP_ERROR_HANDLE, "no state");
  FAILS(lockstep_items_add(own.items, "nothing", NULL), LOCKSTEP_ERROR_HANDLE, "NULL");
  FAILS(lockstep_items_add_array(own.items, "fields", "temperature", &array), LOCKSTEP_ERROR_NAME,
        "'temperature'");
  FAILS(lockstep_items_add_array(own.items, "progress", "field", &array), LOCKSTEP_ERROR_NAME,
        "numbers already");
  FAILS(lockstep_items_add_integer(own.items, "fields", "step", &own.step), LOCKSTEP_ERROR_NAME,
        "arrays already");
  FAILS(lockstep_items_add_integer(own.items, "progress", "more", NULL), LOCKSTEP_ERROR_OPTION,
        "number");
  stop(&own);
}

int main(int argc, char** argv) {
  begin(&argc, &argv);
  lockstep_communicator ranks;
  OK(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks));
  RUN(a_loaded_run_goes_on_with_the_same_bits, ranks);
  RUN(a_load_that_fails_changes_nothing, ranks);
  RUN(ranges_go_to_any_number_of_ranks, ranks);
  RUN(a_manager_keeps_the_last_and_finds_the_newest, ranks);
  RUN(items_have_names_of_their_own, ranks);
  OK(lockstep_communicator_close(ranks));
  OK(lockstep_free(ranks));
  return end();
}
