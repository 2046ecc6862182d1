/* What a program can do wrong is a status and a message, and leaves the program as it was. */
#include "check.h"

/* Calls that want a handle, with one that is NULL, one that was freed, one of another kind, and no
 * handle at all. Handles are looked at first, so that other arguments do not matter. */
#define WANTS_A_HANDLE(type, call)                                                         \
  do {                                                                                     \
    void* const bad[] = {NULL, freed, other, (void*)0x7ffffffffff0, (void*)&other};        \
    static const char* const why[] = {"NULL", "freed", "found one of a schedule", "freed", \
                                      "freed"};                                            \
    for (int i = 0; i < 5; ++i) {                                                          \
      type h = (type)bad[i];                                                               \
      CHECK((call) == LOCKSTEP_ERROR_HANDLE);                                              \
      if (strstr(lockstep_last_error(), why[i]) == NULL) {                                 \
        fail(__FILE__, __LINE__, #call, lockstep_last_error());                            \
      }                                                                                    \
    }                                                                                      \
  } while (0)

static void handles_are_checked(lockstep_communicator ranks) {
  void* result = NULL;
  lockstep_schedule other;
  lockstep_parameters freed;
  OK(lockstep_schedule_create("cosine", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("steps", 3)), &other));
  OK(lockstep_parameters_create(&freed));
  OK(lockstep_free(freed));
  lockstep_watchdog watchdog = NULL;
  int flag = 0;
  int64_t whole = 0;
  double number = 0;
  const char* text = NULL;
  lockstep_array array = array_f64(&number, 1, 1, 0);
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};

  WANTS_A_HANDLE(lockstep_communicator, lockstep_communicator_rank(h, &flag));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_communicator_size(h, &flag));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_communicator_close(h));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_watchdog_create(h, NULL, &watchdog));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_borrow(h, "x", &array));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_add(h, "x", &array));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_count(h, &whole));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_name(h, 0, &text));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_value(h, "x", &array));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_gradient(h, "x", &array));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_read_gradient(h, "x", &array));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_has_gradient(h, "x", &flag));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_zero_gradients(h));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_parameters_set_requires_gradient(h, "x", 0));
  WANTS_A_HANDLE(lockstep_parameters,
                 lockstep_reducer_create(h, ranks, NULL, (lockstep_reducer*)&result));
  WANTS_A_HANDLE(lockstep_communicator,
                 lockstep_reducer_create(NULL, h, NULL, (lockstep_reducer*)&result));
  WANTS_A_HANDLE(lockstep_reducer, lockstep_reducer_set_weight(h, 1));
  WANTS_A_HANDLE(lockstep_reducer, lockstep_reducer_mark_ready(h, "x"));
  WANTS_A_HANDLE(lockstep_reducer, lockstep_reducer_finish(h));
  WANTS_A_HANDLE(lockstep_reducer, lockstep_reducer_set_accumulating(h, 1));
  WANTS_A_HANDLE(lockstep_reducer, lockstep_reducer_discard(h));
  WANTS_A_HANDLE(lockstep_reducer, lockstep_reducer_waited(h, &number));
  WANTS_A_HANDLE(lockstep_model, lockstep_model_add(h, "relu", NULL));
  WANTS_A_HANDLE(lockstep_model, lockstep_model_initialize(h, 1));
  WANTS_A_HANDLE(lockstep_model, lockstep_model_parameters(h, (lockstep_parameters*)&result));
  WANTS_A_HANDLE(lockstep_model, lockstep_model_predict(h, &array, &array));
  WANTS_A_HANDLE(lockstep_model,
                 lockstep_replica_create(h, ranks, NULL, (lockstep_replica*)&result));
  WANTS_A_HANDLE(lockstep_communicator,
                 lockstep_replica_create(NULL, h, NULL, (lockstep_replica*)&result));
  WANTS_A_HANDLE(lockstep_replica, lockstep_replica_reducer(h, (lockstep_reducer*)&result));
  WANTS_A_HANDLE(lockstep_replica, lockstep_replica_backward(h, &array, &array, &loss, &number));
  WANTS_A_HANDLE(lockstep_parameters,
                 lockstep_optimizer_create(h, "Adam", NULL, (lockstep_optimizer*)&result));
  WANTS_A_HANDLE(lockstep_parameters,
                 lockstep_optimizer_create(h, "LBFGS", NULL, (lockstep_optimizer*)&result));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_optimizer_create_sharded(
                                          h, "Adam", NULL, ranks, (lockstep_optimizer*)&result));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_optimizer_create_sharded(
                                            NULL, "Adam", NULL, h, (lockstep_optimizer*)&result));
  WANTS_A_HANDLE(lockstep_parameters, lockstep_optimizer_create_custom(
                                          h, NULL, NULL, NULL, (lockstep_optimizer*)&result));
  const char* name = "x";
  WANTS_A_HANDLE(lockstep_optimizer,
                 lockstep_optimizer_combine(1, &name, &h, (lockstep_optimizer*)&result));
  WANTS_A_HANDLE(lockstep_optimizer,
                 lockstep_stepping_create(h, NULL, NULL, (lockstep_stepping*)&result));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_add_group(h, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_set(h, NULL, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_get(h, NULL, "lr", &number));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_clip(h, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_step(h, NULL, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_step_closure(h, NULL, NULL, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_zero_gradients(h));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_slot(h, "x", "exp_avg", &array));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_before_step(h, NULL, NULL, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_after_step(h, NULL, NULL, NULL));
  WANTS_A_HANDLE(lockstep_optimizer, lockstep_optimizer_remove_hook(h, 0));
  WANTS_A_HANDLE(lockstep_optimizer,
                 lockstep_scheduler_create(h, other, NULL, NULL, (lockstep_scheduler*)&result));
  WANTS_A_HANDLE(lockstep_scheduler, lockstep_scheduler_step(h, NULL));
  WANTS_A_HANDLE(lockstep_scheduler, lockstep_scheduler_last_step(h, &whole));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_reservoir_create(h, 10, &array, &array, NULL,
                                                                  (lockstep_reservoir*)&result));
  WANTS_A_HANDLE(lockstep_reservoir, lockstep_reservoir_add(h, &array, &array));
  WANTS_A_HANDLE(lockstep_reservoir, lockstep_reservoir_draw(h, 1, &array, &array));
  WANTS_A_HANDLE(lockstep_reservoir, lockstep_reservoir_size(h, &whole));
  WANTS_A_HANDLE(lockstep_reservoir, lockstep_reservoir_seen(h, &whole));
  WANTS_A_HANDLE(lockstep_replica, lockstep_trainer_create(h, NULL, &loss, NULL, NULL, 0,
                                                           (lockstep_trainer*)&result));
  WANTS_A_HANDLE(lockstep_trainer, lockstep_trainer_step(h, NULL, NULL, NULL));
  WANTS_A_HANDLE(lockstep_trainer, lockstep_trainer_train(h, 1, NULL));
  WANTS_A_HANDLE(lockstep_trainer, lockstep_trainer_train_for(h, 1, NULL));
  WANTS_A_HANDLE(lockstep_items, lockstep_items_add(h, "x", ranks));
  WANTS_A_HANDLE(lockstep_items, lockstep_items_add_array(h, "x", "x", &array));
  WANTS_A_HANDLE(lockstep_items, lockstep_items_add_range(h, "x", "x", &array, 0, 1));
  WANTS_A_HANDLE(lockstep_items, lockstep_items_add_integer(h, "x", "x", &whole));
  WANTS_A_HANDLE(lockstep_items, lockstep_items_add_real(h, "x", "x", &number));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_checkpoint_save("x", h, NULL));
  WANTS_A_HANDLE(lockstep_communicator, lockstep_checkpoint_load("x", h, NULL, NULL));
  WANTS_A_HANDLE(lockstep_items, lockstep_checkpoint_save("x", ranks, h));
  WANTS_A_HANDLE(lockstep_items, lockstep_checkpoint_load("x", ranks, h, NULL));
  WANTS_A_HANDLE(lockstep_communicator,
                 lockstep_manager_create("x", h, NULL, NULL, (lockstep_manager*)&result));
  WANTS_A_HANDLE(lockstep_items,
                 lockstep_manager_create("x", ranks, h, NULL, (lockstep_manager*)&result));
  WANTS_A_HANDLE(lockstep_manager, lockstep_manager_load_latest(h, &whole));
  WANTS_A_HANDLE(lockstep_manager, lockstep_manager_load_best(h, &whole));
  WANTS_A_HANDLE(lockstep_manager, lockstep_manager_step(h, 1, NULL, NULL));
  WANTS_A_HANDLE(lockstep_manager, lockstep_manager_save(h, 1, NULL));
  WANTS_A_HANDLE(lockstep_manager, lockstep_manager_wait(h));
  WANTS_A_HANDLE(lockstep_manager, lockstep_manager_stop_requested(h, &flag));

  lockstep_schedule none = NULL;
  FAILS(lockstep_schedule_warm_up(3, 0, (lockstep_schedule)freed, &none), LOCKSTEP_ERROR_HANDLE,
        "freed");
  FAILS(lockstep_schedule_chain(1, &none, &none), LOCKSTEP_ERROR_HANDLE, "NULL");
  FAILS(lockstep_scheduler_create(NULL, none, NULL, NULL, NULL), LOCKSTEP_ERROR_HANDLE, "NULL");
  FAILS(lockstep_free(freed), LOCKSTEP_ERROR_HANDLE, "freed");
  OK(lockstep_free(NULL));
  CHECK(result == NULL && none == NULL && number == 0 && whole == 0 && flag == 0 && text == NULL);
  OK(lockstep_free(other));
}

static void results_must_have_a_place(lockstep_communicator ranks) {
  lockstep_model model;
  OK(lockstep_model_create(&model));
  OK(lockstep_model_add(model, "linear",
                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 1), LOCKSTEP_NUMBER("out", 1))));
  lockstep_parameters parameters;
  OK(lockstep_model_parameters(model, &parameters));
  FAILS(lockstep_model_create(NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  FAILS(lockstep_model_parameters(model, NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  FAILS(lockstep_parameters_count(parameters, NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  FAILS(lockstep_parameters_value(parameters, "0.bias", NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  FAILS(lockstep_parameters_gradient(parameters, "0.bias", NULL), LOCKSTEP_ERROR_OPTION,
        "'result'");
  FAILS(lockstep_reducer_create(parameters, ranks, NULL, NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  FAILS(lockstep_replica_create(model, ranks, NULL, NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  FAILS(lockstep_optimizer_create(parameters, "Adam", NULL, NULL), LOCKSTEP_ERROR_OPTION,
        "'result'");
  FAILS(lockstep_communicator_create(MPI_COMM_WORLD, NULL, NULL), LOCKSTEP_ERROR_OPTION,
        "'result'");
  FAILS(lockstep_communicator_rank(ranks, NULL), LOCKSTEP_ERROR_OPTION, "'result'");
  int has = 0;
  OK(lockstep_parameters_has_gradient(parameters, "0.bias", &has));
  CHECK(has == 0); /* a call that has failed has not made a gradient */
  OK(lockstep_free(parameters));
  OK(lockstep_free(model));
}

static void names_and_options_are_checked(lockstep_communicator ranks) {
  (void)ranks;
  lockstep_model model;
  lockstep_communicator none = NULL;
  OK(lockstep_model_create(&model));
  FAILS(lockstep_model_add(model, "dense", NULL), LOCKSTEP_ERROR_NAME, "linear, conv1d");
  FAILS(lockstep_model_add(model, NULL, NULL), LOCKSTEP_ERROR_OPTION, "type");
  FAILS(lockstep_model_add(model, "linear", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 2))),
        LOCKSTEP_ERROR_OPTION, "'out'");
  FAILS(lockstep_model_add(model, "linear",
                           LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 2.5), LOCKSTEP_NUMBER("out", 1))),
        LOCKSTEP_ERROR_OPTION, "2.5");
  FAILS(lockstep_model_add(model, "linear",
                           LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", -1), LOCKSTEP_NUMBER("out", 1))),
        LOCKSTEP_ERROR_OPTION, "-1");
  FAILS(lockstep_model_add(model, "relu", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("slope", 1))),
        LOCKSTEP_ERROR_OPTION, "slope");
  FAILS(lockstep_model_add(model, "dropout", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("p", 1))),
        LOCKSTEP_ERROR_OPTION, "");
  FAILS(lockstep_model_add(
            model, "conv2d",
            LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 1), LOCKSTEP_NUMBER("out", 1),
                             LOCKSTEP_NUMBER("kernel", 1), LOCKSTEP_NUMBER("kernel", 2),
                             LOCKSTEP_NUMBER("kernel", 3))),
        LOCKSTEP_ERROR_OPTION, "one number or 2");
  FAILS(lockstep_model_add(model, "linear",
                           LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 1), LOCKSTEP_NUMBER("in", 2),
                                            LOCKSTEP_NUMBER("out", 1))),
        LOCKSTEP_ERROR_OPTION, "several");
  FAILS(lockstep_communicator_create(MPI_COMM_NULL, NULL, &none), LOCKSTEP_ERROR_OPTION,
        "MPI_COMM_NULL");
  FAILS(lockstep_communicator_create(MPI_COMM_WORLD, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("share", 1)),
                                     &none),
        LOCKSTEP_ERROR_OPTION, "share_memory");
  CHECK(none == NULL);
  /* A model without parameters has nothing to train. */
  lockstep_replica replica;
  FAILS(lockstep_replica_create(model, ranks, NULL, &replica), LOCKSTEP_ERROR_OPTION, "");
  lockstep_parameters parameters;
  lockstep_optimizer optimizer;
  OK(lockstep_parameters_create(&parameters));
  FAILS(lockstep_optimizer_create(parameters, "Adam", NULL, &optimizer), LOCKSTEP_ERROR_OPTION, "");
  FAILS(lockstep_optimizer_create(parameters, "Adamant", NULL, &optimizer), LOCKSTEP_ERROR_NAME,
        "AdamW");
  FAILS(lockstep_optimizer_create(parameters, NULL, NULL, &optimizer), LOCKSTEP_ERROR_OPTION,
        "rule");
  OK(lockstep_free(parameters));
  OK(lockstep_free(model));
}

static void models_are_read_from_files(lockstep_communicator ranks) {
  (void)ranks;
  char path[200], command[300];
  snprintf(path, sizeof(path), "%s-%d.toml", own_path("model"), own_rank);
  static const struct {
    const char *text, *message;
  } files[] = {
      {"dtype = 'f64'\n[[layer]]\ntype = 'linear'\nin = 2\nout = 1\n\n[[layer]]\ntype = 'tanh'\n",
       NULL},
      {"[[layer]]\ntype = 'linear'\nin = 2\n", "line 1: layer linear: option 'out' is missing"},
      {"[[layer]]\ntype = 'relu'\n\n[[layer]]\ntype = 'lin'\n",
       "line 4: there is no type of layer 'lin'"},
      {"[[layer]]\nin = 2\n", "without a type"},
      {"[[layer]]\ntype = 3\n", "line 1"},
      {"layers = 3\n", "line 1"},
      {"", "without a `[[layer]]`"},
      {"[[layer\n", "line 1"},
      {"[[layer]]\ntype = 'dropout'\np = 1979-05-27\n", "line 1"},
  };
  lockstep_model model = NULL;
  for (size_t i = 0; i < sizeof(files) / sizeof(*files); ++i) {
    FILE* file = fopen(path, "w");
    fputs(files[i].text, file);
    fclose(file);
    if (files[i].message == NULL) {
      lockstep_parameters parameters;
      lockstep_array w;
      OK(lockstep_model_read(path, &model));
      OK(lockstep_model_parameters(model, &parameters));
      OK(lockstep_parameters_value(parameters, "0.weight", &w));
      CHECK(w.dtype == LOCKSTEP_F64 && w.extents[1] == 2);
      OK(lockstep_free(parameters));
      OK(lockstep_free(model));
      model = NULL;
      continue;
    }
    CHECK(lockstep_model_read(path, &model) == LOCKSTEP_ERROR_DATA && model == NULL);
    if (strstr(lockstep_last_error(), files[i].message) == NULL) {
      fail(__FILE__, __LINE__, files[i].message, lockstep_last_error());
    }
    CHECK(strstr(lockstep_last_error(), path) != NULL);
  }
  snprintf(command, sizeof(command), "rm '%s'", path);
  CHECK(system(command) == 0);
  FAILS(lockstep_model_read(path, &model), LOCKSTEP_ERROR_DATA, "-model-");
  FAILS(lockstep_model_read(NULL, &model), LOCKSTEP_ERROR_OPTION, "path");
}

struct notes {
  int count;
  char last[300];
};

static void note(void* context, lockstep_log_level level, const char* message) {
  struct notes* own = context;
  ++own->count;
  snprintf(own->last, sizeof(own->last), "%d %s", (int)level, message);
}

static void notices_go_to_a_callback(lockstep_communicator ranks) {
  (void)ranks;
  struct notes notes = {0, ""};
  double numbers[2] = {1, 2};
  const lockstep_array array = array_f64(numbers, 1, 1, 0);
  lockstep_parameters parameters;
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "trained", &array));
  OK(lockstep_parameters_borrow(parameters, "left", &array));
  lockstep_optimizer optimizer;
  OK(lockstep_set_log_callback(note, &notes));
  /* It warns of parameters in no group. */
  OK(lockstep_optimizer_create(parameters, "SGD",
                               LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "trained")), &optimizer));
  CHECK(notes.count == 1 && notes.last[0] == '1' && strstr(notes.last, "1 of the 2") != NULL);
  OK(lockstep_free(optimizer));
  OK(lockstep_set_log_callback(NULL, NULL));
  OK(lockstep_optimizer_create(parameters, "SGD",
                               LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "trained")), &optimizer));
  CHECK(notes.count == 1);
  OK(lockstep_free(optimizer));
  OK(lockstep_free(parameters));
}

static void a_closed_communicator_is_an_error(lockstep_communicator ranks) {
  (void)ranks;
  lockstep_communicator own;
  double number = 1;
  const lockstep_array array = array_f64(&number, 1, 1, 0);
  lockstep_parameters parameters;
  lockstep_reducer reducer;
  lockstep_items items;
  OK(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &own));
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "x", &array));
  OK(lockstep_items_create(&items));
  OK(lockstep_communicator_close(own));
  OK(lockstep_communicator_close(own));
  FAILS(lockstep_reducer_create(parameters, own, NULL, &reducer), LOCKSTEP_ERROR_STATE, "closed");
  FAILS(lockstep_checkpoint_save("nowhere", own, items), LOCKSTEP_ERROR_STATE, "closed");
  OK(lockstep_free(items));
  OK(lockstep_free(parameters));
  OK(lockstep_free(own));
}

static void a_process_has_one_watchdog(lockstep_communicator ranks) {
  lockstep_watchdog watchdog = NULL, another = NULL;
  FAILS(lockstep_watchdog_create(ranks, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("signals", 3)), &watchdog),
        LOCKSTEP_ERROR_OPTION, "signals");
  FAILS(lockstep_watchdog_create(ranks, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("grace", -1)), &watchdog),
        LOCKSTEP_ERROR_OPTION, "grace");
  OK(lockstep_watchdog_create(
      ranks, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("signal", 12), LOCKSTEP_NUMBER("grace", 2.5)),
      &watchdog));
  FAILS(lockstep_watchdog_create(ranks, NULL, &another), LOCKSTEP_ERROR_STATE,
        "has a watchdog already");
  CHECK(another == NULL);
  OK(lockstep_free(watchdog));
  OK(lockstep_watchdog_create(ranks, NULL, &another));
  OK(lockstep_free(another));
}

int main(int argc, char** argv) {
  if (strcmp(lockstep_last_error(), "") != 0) return 2;
  lockstep_communicator ranks;
  if (lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks) != LOCKSTEP_ERROR_STATE) return 3;
  if (strstr(lockstep_last_error(), "MPI_Init") == NULL) return 4;
  begin(&argc, &argv);
  OK(lockstep_communicator_create_f(MPI_Comm_c2f(MPI_COMM_WORLD), NULL, &ranks));
  CHECK(strcmp(lockstep_version(), "0.1.0") == 0);
  RUN(handles_are_checked, ranks);
  RUN(results_must_have_a_place, ranks);
  RUN(names_and_options_are_checked, ranks);
  RUN(models_are_read_from_files, ranks);
  RUN(notices_go_to_a_callback, ranks);
  RUN(a_process_has_one_watchdog, ranks);
  RUN(a_closed_communicator_is_an_error, ranks);
  OK(lockstep_communicator_close(ranks));
  OK(lockstep_free(ranks));
  return end();
}
