/* A host in C, for host_test.py, with the thread level that its argument says, or without an
 * MPI_Init of its own; it trains, and does what hosts do at the end. Prints what it has found. */
#include <lockstep.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(lockstep_status status) {
  if (status == LOCKSTEP_OK) return;
  fprintf(stderr, "%s\n", lockstep_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

struct surrogate {
  lockstep_communicator ranks;
  lockstep_model model;
  lockstep_parameters parameters;
  lockstep_replica replica;
  lockstep_reducer reducer;
  lockstep_optimizer optimizer;
  lockstep_schedule schedule;
  lockstep_scheduler scheduler;
  lockstep_reservoir reservoir;
  lockstep_trainer trainer;
  lockstep_items items;
  lockstep_manager manager;
};

static void create(struct surrogate* own, const char* folder) {
  const lockstep_array input = {LOCKSTEP_F64, 1, {1}, NULL};
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
  check(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &own->ranks));
  check(lockstep_model_create(&own->model));
  check(lockstep_model_add(own->model, "linear",
                           LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 1), LOCKSTEP_NUMBER("out", 1),
                                            LOCKSTEP_WORD("dtype", "f64"))));
  check(lockstep_model_parameters(own->model, &own->parameters));
  check(lockstep_replica_create(own->model, own->ranks, NULL, &own->replica));
  check(lockstep_replica_reducer(own->replica, &own->reducer));
  check(lockstep_optimizer_create(own->parameters, "SGD",
                                  LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.1)), &own->optimizer));
  check(lockstep_schedule_create("constant", NULL, &own->schedule));
  check(lockstep_scheduler_create(own->optimizer, own->schedule, NULL, NULL, &own->scheduler));
  check(lockstep_reservoir_create(own->ranks, 100, &input, &input, NULL, &own->reservoir));
  check(lockstep_trainer_create(own->replica, own->optimizer, &loss, NULL, own->reservoir, 8,
                                &own->trainer));
  check(lockstep_items_create(&own->items));
  check(lockstep_items_add(own->items, "model", own->model));
  check(lockstep_manager_create(folder, own->ranks, own->items, NULL, &own->manager));
}

static void train(struct surrogate* own) {
  double x[10], y[10];
  for (int i = 0; i < 10; ++i) x[i] = sin(i), y[i] = 3 * x[i] - 2;
  const lockstep_array inputs = {LOCKSTEP_F64, 2, {10, 1}, x},
                       targets = {LOCKSTEP_F64, 2, {10, 1}, y};
  check(lockstep_reservoir_add(own->reservoir, &inputs, &targets));
  check(lockstep_trainer_train(own->trainer, 400, NULL));
  check(lockstep_manager_save(own->manager, 1, NULL));
  lockstep_array w;
  check(lockstep_parameters_value(own->parameters, "0.weight", &w));
  if (fabs(*(double*)w.data - 3) > 1e-3) exit(4);
}

static void drop(struct surrogate* own) {
  void* all[] = {own->ranks,      own->trainer,  own->model,     own->manager,
                 own->parameters, own->replica,  own->reducer,   own->optimizer,
                 own->scheduler,  own->schedule, own->reservoir, own->items};
  for (size_t i = 0; i < sizeof(all) / sizeof(*all); ++i) check(lockstep_free(all[i]));
}

/* After MPI_Finalize() each collective call is a status, and what is local goes on. */
static int survives(struct surrogate* own) {
  int wrong = 0;
  double number = 1;
  const lockstep_array one = {LOCKSTEP_F64, 2, {1, 1}, &number};
  lockstep_array array;
  lockstep_communicator communicator;
  lockstep_reducer reducer;
  lockstep_optimizer optimizer;
  lockstep_manager manager;
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
#define IS_TOO_LATE(call)                                                                        \
  if ((call) != LOCKSTEP_ERROR_STATE || strstr(lockstep_last_error(), "MPI_Finalize") == NULL) { \
    fprintf(stderr, "%s: %s\n", #call, lockstep_last_error());                                   \
    ++wrong;                                                                                     \
  }
  IS_TOO_LATE(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &communicator));
  IS_TOO_LATE(lockstep_communicator_close(own->ranks));
  IS_TOO_LATE(lockstep_trainer_train(own->trainer, 1, NULL));
  IS_TOO_LATE(lockstep_trainer_train_for(own->trainer, 1, NULL));
  IS_TOO_LATE(lockstep_trainer_step(own->trainer, &one, &one, NULL));
  IS_TOO_LATE(lockstep_reservoir_draw(own->reservoir, 1, &array, &array));
  IS_TOO_LATE(lockstep_replica_backward(own->replica, &one, &one, &loss, NULL));
  IS_TOO_LATE(lockstep_reducer_finish(own->reducer));
  IS_TOO_LATE(lockstep_reducer_create(own->parameters, own->ranks, NULL, &reducer));
  IS_TOO_LATE(lockstep_replica_create(own->model, own->ranks, NULL, &own->replica));
  IS_TOO_LATE(
      lockstep_optimizer_create_sharded(own->parameters, "Adam", NULL, own->ranks, &optimizer));
  IS_TOO_LATE(lockstep_checkpoint_save("nowhere", own->ranks, own->items));
  IS_TOO_LATE(lockstep_checkpoint_load("nowhere", own->ranks, own->items, NULL));
  IS_TOO_LATE(lockstep_manager_save(own->manager, 2, NULL));
  IS_TOO_LATE(lockstep_manager_create("nowhere", own->ranks, own->items, NULL, &manager));
  check(lockstep_parameters_value(own->parameters, "0.weight", &array));
  check(lockstep_model_predict(own->model, &one, &one));
  check(lockstep_reservoir_add(own->reservoir, &one, &one));
  return wrong;
}

int main(int argc, char** argv) {
  static const struct {
    const char* name;
    int level;
  } levels[] = {{"single", MPI_THREAD_SINGLE},
                {"funneled", MPI_THREAD_FUNNELED},
                {"serialized", MPI_THREAD_SERIALIZED},
                {"multiple", MPI_THREAD_MULTIPLE}};
  if (argc != 4) return 2;
  const char *begin = argv[1], *end = argv[2], *folder = argv[3];
  lockstep_environment environment = NULL;
  int provided = -1, again = -1;
  for (int i = 0; i < 4; ++i) {
    if (strcmp(begin, levels[i].name) == 0)
      MPI_Init_thread(&argc, &argv, levels[i].level, &provided);
  }
  if (strcmp(begin, "library") == 0) check(lockstep_environment_create(&argc, &argv, &environment));
  if (strcmp(begin, "both") == 0) {
    MPI_Init(&argc, &argv);
    check(lockstep_environment_create(NULL, NULL, &environment));
  }
  MPI_Query_thread(&provided);
  struct surrogate own;
  create(&own, folder);
  train(&own);
  if (strcmp(end, "finalize") == 0) {
    MPI_Finalize();
    const int wrong = survives(&own);
    drop(&own);
    if (wrong) return 5;
  } else {
    drop(&own);
    MPI_Query_thread(&again);
    if (again != provided) return 6;
    check(lockstep_free(environment));
    int finalized = 0;
    MPI_Finalized(&finalized);
    /* It ends what it began, and nothing else. */
    if (finalized != (strcmp(begin, "library") == 0)) return 7;
    if (!finalized) MPI_Finalize();
  }
  fputs("ended\n", stdout); /* at once, where stdout has no buffer */
  return 0;
}
