/* Optimizers by name and by a rule of the caller's, their groups, hooks and schedules. */
#include "check.h"

enum { size = 5 };

/* A parameter of the caller's with a gradient that is its value times `factor`. */
struct problem {
  double numbers[size];
  lockstep_parameters parameters;
};

static void start(struct problem* problem) {
  for (int i = 0; i < size; ++i) problem->numbers[i] = i + 1;
  const lockstep_array array = array_f64(problem->numbers, 1, size, 0);
  OK(lockstep_parameters_create(&problem->parameters));
  OK(lockstep_parameters_borrow(problem->parameters, "x", &array));
}

static void set_gradient(struct problem* problem, double factor) {
  lockstep_array gradient;
  OK(lockstep_parameters_gradient(problem->parameters, "x", &gradient));
  for (int i = 0; i < size; ++i) ((double*)gradient.data)[i] = factor * problem->numbers[i];
}

static void every_rule_has_a_name(lockstep_communicator ranks) {
  static const char* const rules[] = {"Adadelta", "Adagrad", "Adam",  "AdamW", "Adamax",
                                      "ASGD",     "LAMB",    "LARS",  "Lion",  "NAdam",
                                      "RAdam",    "RMSprop", "Rprop", "SGD"};
  for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); ++i) {
    for (int sharded = 0; sharded < 2; ++sharded) {
      struct problem problem;
      lockstep_optimizer optimizer;
      start(&problem);
      const lockstep_option* options = LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.25));
      if (sharded) {
        OK(lockstep_optimizer_create_sharded(problem.parameters, rules[i], options, ranks,
                                             &optimizer));
      } else {
        OK(lockstep_optimizer_create(problem.parameters, rules[i], options, &optimizer));
      }
      double lr = 0;
      OK(lockstep_optimizer_get(optimizer, "0", "lr", &lr));
      CHECK(lr == 0.25);
      set_gradient(&problem, 1);
      OK(lockstep_optimizer_step(optimizer, NULL, NULL));
      CHECK(problem.numbers[0] != 1);
      CHECK(problem.numbers[0] < 1.5);
      OK(lockstep_free(optimizer));
      OK(lockstep_free(problem.parameters));
    }
  }
}

static void adam_makes_the_step_of_its_paper(lockstep_communicator ranks) {
  (void)ranks;
  struct problem problem;
  lockstep_optimizer optimizer;
  start(&problem);
  OK(lockstep_optimizer_create(
      problem.parameters, "Adam",
      LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.1), LOCKSTEP_NUMBER("beta1", 0.8),
                       LOCKSTEP_NUMBER("beta2", 0.9), LOCKSTEP_NUMBER("eps", 1e-3)),
      &optimizer));
  double m = 0, v = 0, x = 2;
  for (int t = 1; t <= 3; ++t) {
    const double g = 3 * x;
    m = 0.8 * m + 0.2 * g;
    v = 0.9 * v + 0.1 * g * g;
    x -= 0.1 * (m / (1 - pow(0.8, t))) / (sqrt(v / (1 - pow(0.9, t))) + 1e-3);
    set_gradient(&problem, 3);
    OK(lockstep_optimizer_step(optimizer, NULL, NULL));
    CHECK(is_near(problem.numbers[1], x, 1e-13));
  }
  lockstep_array slot;
  OK(lockstep_optimizer_slot(optimizer, "x", "exp_avg", &slot));
  CHECK(slot.extents[0] == size && is_near(((double*)slot.data)[1], m, 1e-13));
  FAILS(lockstep_optimizer_slot(optimizer, "x", "momentum", &slot), LOCKSTEP_ERROR_NAME,
        "exp_avg_sq");
  FAILS(lockstep_optimizer_slot(optimizer, "y", "exp_avg", &slot), LOCKSTEP_ERROR_NAME, "y");
  OK(lockstep_free(optimizer));
  OK(lockstep_free(problem.parameters));
}

struct heavy_ball {
  int calls;
  int fails;
};

/* SGD with momentum, as the library has it. */
static int heavy_ball_update(void* context, const lockstep_update* update) {
  struct heavy_ball* own = context;
  ++own->calls;
  if (own->fails) return 5;
  if (update->dtype != LOCKSTEP_F64) return 1;
  double* x = update->value;
  const double* g = update->gradient;
  double* v = update->slots[0];
  const double lr = update->hyper_parameters[0], momentum = update->hyper_parameters[1];
  for (int64_t i = 0; i < update->size; ++i) {
    v[i] = (update->step == 1 ? 0 : momentum * v[i]) + update->gradient_scale * g[i];
    x[i] -= lr * v[i];
  }
  return 0;
}

static lockstep_rule heavy_ball_rule(struct heavy_ball* own) {
  static const char* const slots[] = {"velocity"};
  static const lockstep_field fields[] = {{"lr", 0.01}, {"momentum", 0.5}};
  const lockstep_rule rule = {"HeavyBall", 1, slots, 2, fields, 0, heavy_ball_update, own};
  return rule;
}

static void a_rule_of_the_callers_steps_like_the_librarys(lockstep_communicator ranks) {
  for (int sharded = 0; sharded < 2; ++sharded) {
    struct problem own, library;
    struct heavy_ball context = {0, 0};
    const lockstep_rule rule = heavy_ball_rule(&context);
    lockstep_optimizer optimizer, reference;
    start(&own);
    start(&library);
    OK(lockstep_optimizer_create_custom(own.parameters, &rule,
                                        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("momentum", 0.9)),
                                        sharded ? ranks : NULL, &optimizer));
    OK(lockstep_optimizer_create(
        library.parameters, "SGD",
        LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.01), LOCKSTEP_NUMBER("momentum", 0.9)),
        &reference));
    for (int step = 0; step < 4; ++step) {
      set_gradient(&own, 1);
      set_gradient(&library, 1);
      OK(lockstep_optimizer_step(optimizer,
                                 LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("gradient_scale", 0.5)), NULL));
      OK(lockstep_optimizer_step(reference,
                                 LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("gradient_scale", 0.5)), NULL));
      CHECK(memcmp(own.numbers, library.numbers, sizeof(own.numbers)) == 0);
    }
    CHECK(context.calls > 0 || sharded);
    if (!sharded) {
      context.fails = 1;
      set_gradient(&own, 1);
      FAILS(lockstep_optimizer_step(optimizer, NULL, NULL), LOCKSTEP_ERROR_CALLBACK,
            "HeavyBall returned 5");
    }
    OK(lockstep_free(optimizer));
    OK(lockstep_free(reference));
    OK(lockstep_free(own.parameters));
    OK(lockstep_free(library.parameters));
  }
}

static void a_rule_that_is_none_is_refused(lockstep_communicator ranks) {
  (void)ranks;
  struct problem problem;
  struct heavy_ball context = {0, 0};
  lockstep_optimizer optimizer = NULL;
  start(&problem);
  lockstep_rule rule = heavy_ball_rule(&context);
  rule.update = NULL;
  FAILS(lockstep_optimizer_create_custom(problem.parameters, &rule, NULL, NULL, &optimizer),
        LOCKSTEP_ERROR_OPTION, "update");
  rule = heavy_ball_rule(&context);
  rule.slot_count = 9;
  FAILS(lockstep_optimizer_create_custom(problem.parameters, &rule, NULL, NULL, &optimizer),
        LOCKSTEP_ERROR_OPTION, "slot_count");
  rule = heavy_ball_rule(&context);
  rule.hyper_parameter_count = 0;
  FAILS(lockstep_optimizer_create_custom(problem.parameters, &rule, NULL, NULL, &optimizer),
        LOCKSTEP_ERROR_NAME, "lr");
  rule = heavy_ball_rule(&context);
  rule.name = NULL;
  FAILS(lockstep_optimizer_create_custom(problem.parameters, &rule, NULL, NULL, &optimizer),
        LOCKSTEP_ERROR_OPTION, "rule.name");
  const lockstep_field twice[] = {{"lr", 1}, {"lr", 2}};
  rule = heavy_ball_rule(&context);
  rule.hyper_parameters = twice;
  FAILS(lockstep_optimizer_create_custom(problem.parameters, &rule, NULL, NULL, &optimizer),
        LOCKSTEP_ERROR_NAME, "twice");
  CHECK(optimizer == NULL);
  OK(lockstep_free(problem.parameters));
}

struct hooks {
  int before, after;
  double norm;
  int fails;
  lockstep_optimizer seen;
};

static int before_hook(void* context, lockstep_optimizer optimizer,
                       const lockstep_step_report* report) {
  struct hooks* own = context;
  ++own->before;
  own->seen = optimizer;
  CHECK(report == NULL);
  return own->fails;
}

static int after_hook(void* context, lockstep_optimizer optimizer,
                      const lockstep_step_report* report) {
  struct hooks* own = context;
  (void)optimizer;
  ++own->after;
  own->norm = report->gradient_norm;
  return 0;
}

static void hooks_are_called_around_steps(lockstep_communicator ranks) {
  (void)ranks;
  struct problem problem;
  struct hooks hooks = {0, 0, 0, 0, NULL};
  lockstep_optimizer optimizer;
  int64_t first, second;
  start(&problem);
  OK(lockstep_optimizer_create(problem.parameters, "SGD",
                               LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 1)), &optimizer));
  OK(lockstep_optimizer_before_step(optimizer, before_hook, &hooks, &first));
  OK(lockstep_optimizer_after_step(optimizer, after_hook, &hooks, &second));
  OK(lockstep_optimizer_clip(optimizer, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("global_norm", 1))));
  set_gradient(&problem, 1);
  OK(lockstep_optimizer_step(optimizer, NULL, NULL));
  CHECK(hooks.before == 1 && hooks.after == 1 && hooks.seen == optimizer);
  CHECK(is_near(hooks.norm, sqrt(55), 1e-12)); /* 1 + 4 + 9 + 16 + 25 */
  CHECK(is_near(problem.numbers[4], 5 - 5 / (sqrt(55) + 1e-6), 1e-12));
  hooks.fails = 9;
  FAILS(lockstep_optimizer_step(optimizer, NULL, NULL), LOCKSTEP_ERROR_CALLBACK, "returned 9");
  OK(lockstep_optimizer_remove_hook(optimizer, first));
  OK(lockstep_optimizer_step(optimizer, NULL, NULL));
  CHECK(hooks.before == 2 && hooks.after == 2);
  OK(lockstep_optimizer_clip(optimizer, NULL));
  FAILS(lockstep_optimizer_clip(optimizer, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("norm", -1))),
        LOCKSTEP_ERROR_OPTION, "");
  set_gradient(&problem, NAN);
  lockstep_step_report report = {5, 5, 5};
  OK(lockstep_optimizer_step(optimizer, LOCKSTEP_OPTIONS(LOCKSTEP_WORD("non_finite", "skip")),
                             &report));
  CHECK(report.applied == 0 && problem.numbers[0] < 2);
  OK(lockstep_free(optimizer));
  OK(lockstep_free(problem.parameters));
}

/* (x - 3)² summed. */
static int quadratic(void* context, double* loss) {
  struct problem* problem = context;
  lockstep_array gradient;
  OK(lockstep_parameters_gradient(problem->parameters, "x", &gradient));
  *loss = 0;
  for (int i = 0; i < size; ++i) {
    const double d = problem->numbers[i] - 3;
    *loss += d * d;
    ((double*)gradient.data)[i] = 2 * d;
  }
  return 0;
}

static int no_loss(void* context, double* loss) {
  (void)context, (void)loss;
  return 4;
}

static void lbfgs_searches_with_a_closure(lockstep_communicator ranks) {
  (void)ranks;
  struct problem problem;
  lockstep_optimizer optimizer;
  start(&problem);
  OK(lockstep_optimizer_create(
      problem.parameters, "LBFGS",
      LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("strong_wolfe", 1), LOCKSTEP_NUMBER("max_iter", 10)),
      &optimizer));
  double loss = 0;
  OK(lockstep_optimizer_step_closure(optimizer, quadratic, &problem, &loss));
  CHECK(loss == 10); /* 4 + 1 + 0 + 1 + 4, at the start */
  for (int i = 0; i < size; ++i) CHECK(is_near(problem.numbers[i], 3, 1e-8));
  FAILS(lockstep_optimizer_step_closure(optimizer, no_loss, NULL, &loss), LOCKSTEP_ERROR_CALLBACK,
        "returned 4");
  FAILS(lockstep_optimizer_step(optimizer, NULL, NULL), LOCKSTEP_ERROR_OPTION, "");
  OK(lockstep_free(optimizer));
  FAILS(lockstep_optimizer_create(problem.parameters, "LBFGS",
                                  LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("max_iter", 1.5)), &optimizer),
        LOCKSTEP_ERROR_OPTION, "an integer");
  OK(lockstep_free(problem.parameters));
}

static double halves(void* context, int64_t step) {
  ++*(int*)context;
  return pow(0.5, (double)step);
}

static void groups_have_options_and_schedules(lockstep_communicator ranks) {
  (void)ranks;
  double a[2] = {1, 1}, b[2] = {1, 1};
  const lockstep_array arrays[] = {array_f64(a, 1, 2, 0), array_f64(b, 1, 2, 0)};
  lockstep_parameters parameters;
  OK(lockstep_parameters_create(&parameters));
  OK(lockstep_parameters_borrow(parameters, "net.a", &arrays[0]));
  OK(lockstep_parameters_borrow(parameters, "head.b", &arrays[1]));
  lockstep_optimizer optimizer;
  OK(lockstep_optimizer_create(
      parameters, "SGD",
      LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "net.*"), LOCKSTEP_NUMBER("lr", 0.5)), &optimizer));
  OK(lockstep_optimizer_add_group(
      optimizer, LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "head.b"), LOCKSTEP_WORD("name", "head"),
                                  LOCKSTEP_NUMBER("nesterov", 0), LOCKSTEP_NUMBER("lr", 0.125))));
  FAILS(
      lockstep_optimizer_add_group(optimizer, LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "head.b"))),
      LOCKSTEP_ERROR_NAME, "head.b");
  FAILS(
      lockstep_optimizer_add_group(optimizer, LOCKSTEP_OPTIONS(LOCKSTEP_WORD("params", "none.*"))),
      LOCKSTEP_ERROR_NAME, "none.*");
  double value = 0;
  OK(lockstep_optimizer_get(optimizer, "head", "lr", &value));
  CHECK(value == 0.125);
  OK(lockstep_optimizer_set(optimizer, NULL,
                            LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("weight_decay", 0.25))));
  OK(lockstep_optimizer_get(optimizer, "head", "weight_decay", &value));
  CHECK(value == 0.25);
  FAILS(lockstep_optimizer_set(optimizer, NULL,
                               LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("weight_decay", -1))),
        LOCKSTEP_ERROR_OPTION, "weight_decay");
  FAILS(lockstep_optimizer_set(optimizer, NULL, LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("beta1", 0.5))),
        LOCKSTEP_ERROR_NAME, "beta1");
  FAILS(lockstep_optimizer_set(optimizer, "tail", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 1))),
        LOCKSTEP_ERROR_NAME, "tail");
  FAILS(lockstep_optimizer_set(optimizer, NULL, LOCKSTEP_OPTIONS(LOCKSTEP_WORD("lr", "fast"))),
        LOCKSTEP_ERROR_OPTION, "a number");
  OK(lockstep_optimizer_get(optimizer, "0", "weight_decay", &value));
  CHECK(value == 0.25);

  int calls = 0;
  lockstep_schedule by_function, step, exponential, sequence, chain;
  OK(lockstep_schedule_create_function(halves, &calls, &by_function));
  OK(lockstep_schedule_create(
      "multi_step",
      LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("milestones", 2), LOCKSTEP_NUMBER("milestones", 3),
                       LOCKSTEP_NUMBER("gamma", 0.5)),
      &step));
  OK(lockstep_schedule_create("exponential", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("gamma", 0.5)),
                              &exponential));
  const lockstep_schedule both[] = {by_function, step};
  const int64_t until[] = {2};
  OK(lockstep_schedule_sequence(2, both, until, &sequence));
  const lockstep_schedule links[] = {exponential, step};
  OK(lockstep_schedule_chain(2, links, &chain));
  lockstep_scheduler one, other;
  OK(lockstep_scheduler_create(optimizer, sequence, "lr", "0", &one));
  OK(lockstep_scheduler_create(optimizer, chain, NULL, "head", &other));
  const double expected_one[] = {0.5, 0.25, 0.5, 0.5,
                                 0.25}; /* the second begins at step 2 with its own step 0 */
  const double expected_other[] = {0.125, 0.0625, 0.015625, 0.00390625, 0.001953125};
  for (int i = 0; i < 5; ++i) {
    OK(lockstep_optimizer_get(optimizer, "0", "lr", &value));
    CHECK(value == expected_one[i]);
    OK(lockstep_optimizer_get(optimizer, "head", "lr", &value));
    CHECK(value == expected_other[i]);
    OK(lockstep_scheduler_step(one, NULL));
    OK(lockstep_scheduler_step(other, NULL));
  }
  CHECK(calls > 0);
  lockstep_schedule plateau;
  lockstep_scheduler third;
  OK(lockstep_schedule_create(
      "on_plateau", LOCKSTEP_OPTIONS(LOCKSTEP_WORD("mode", "max"), LOCKSTEP_NUMBER("patience", 0)),
      &plateau));
  OK(lockstep_scheduler_create(optimizer, plateau, "weight_decay", NULL, &third));
  FAILS(lockstep_scheduler_step(third, NULL), LOCKSTEP_ERROR_OPTION, "metric");
  const double metrics[] = {5, 4};
  OK(lockstep_scheduler_step(third, &metrics[0]));
  OK(lockstep_scheduler_step(third, &metrics[1]));
  OK(lockstep_optimizer_get(optimizer, "head", "weight_decay", &value));
  CHECK(is_near(value, 0.025, 1e-12));
  FAILS(lockstep_schedule_create("cosine", NULL, &plateau), LOCKSTEP_ERROR_OPTION,
        "'steps' is missing");
  FAILS(lockstep_schedule_create("cosinus", NULL, &plateau), LOCKSTEP_ERROR_NAME,
        "cosine_restarts");
  FAILS(lockstep_schedule_create("on_plateau", LOCKSTEP_OPTIONS(LOCKSTEP_WORD("mode", "best")),
                                 &plateau),
        LOCKSTEP_ERROR_OPTION, "min, max");
  FAILS(lockstep_schedule_sequence(0, both, until, &plateau), LOCKSTEP_ERROR_OPTION, "found 0");

  void* all[] = {optimizer,   one,      other, third,      by_function, step,
                 exponential, sequence, chain, parameters, plateau};
  for (size_t i = 0; i < sizeof(all) / sizeof(*all); ++i) OK(lockstep_free(all[i]));
}

int main(int argc, char** argv) {
  begin(&argc, &argv);
  lockstep_communicator ranks;
  OK(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks));
  RUN(every_rule_has_a_name, ranks);
  RUN(adam_makes_the_step_of_its_paper, ranks);
  RUN(a_rule_of_the_callers_steps_like_the_librarys, ranks);
  RUN(a_rule_that_is_none_is_refused, ranks);
  RUN(hooks_are_called_around_steps, ranks);
  RUN(lbfgs_searches_with_a_closure, ranks);
  RUN(groups_have_options_and_schedules, ranks);
  OK(lockstep_communicator_close(ranks));
  OK(lockstep_free(ranks));
  return end();
}
