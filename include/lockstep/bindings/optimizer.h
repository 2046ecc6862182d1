/* Named optimizers, with rules and hooks of the caller's. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_OPTIMIZER_H
#define LOCKSTEP_BINDINGS_OPTIMIZER_H

#include "lockstep/bindings/base.h"
#include "lockstep/bindings/parameters.h"
#include "lockstep/bindings/ranks.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lockstep_optimizer_handle* lockstep_optimizer;

/* An optimizer by the name of its update rule: Adadelta, Adagrad, Adam, AdamW, Adamax, ASGD, LAMB,
 * LARS, Lion, NAdam, RAdam, RMSprop, Rprop, SGD; or LBFGS. Options are its hyper-parameters, by the
 * names that docs/optimizers.md has; and beside them
 *   params  globs, as texts, of the names of those parameters that it trains; all, unless given.
 *           Others
 *           may come with lockstep_optimizer_add_group(). */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_create(lockstep_parameters parameters,
                                                        const char* rule,
                                                        const lockstep_option* options,
                                                        lockstep_optimizer* result);
/* One of which each rank steps a share of the numbers, and has the state of these alone; not LBFGS.
 * Collective, as its steps are. One more option: shared_replica  0: whether the ranks of a node
 * have one copy of the values. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_create_sharded(lockstep_parameters parameters,
                                                                const char* rule,
                                                                const lockstep_option* options,
                                                                lockstep_communicator communicator,
                                                                lockstep_optimizer* result);

/* What a rule of the caller's is given: numbers of one dtype that are to be updated, of one
 * parameter or of several that lie side by side in memory. */
typedef struct lockstep_update {
  lockstep_dtype dtype; /* LOCKSTEP_F32 or LOCKSTEP_F64, of value, gradient and slots */
  int64_t size;         /* of each */
  void* value;
  const void* gradient;
  void* const* slots;             /* in the order of the definition */
  const double* hyper_parameters; /* in the order of the definition */
  int64_t step;                   /* number of this step, from 1 */
  double gradient_scale;          /* what the gradient is to be multiplied with */
} lockstep_update;

typedef struct lockstep_field {
  const char* name;
  double value; /* the default */
} lockstep_field;

/* An update rule of the caller's. One of the hyper-parameters is "lr". What is pointed to is
 * copied. */
typedef struct lockstep_rule {
  const char* name;
  /* Of up to 8 slots: each has a number for each number of a parameter, zeros at first, and is
   * saved with the state. */
  int64_t slot_count;
  const char* const* slot_names;
  int64_t hyper_parameter_count;
  const lockstep_field* hyper_parameters;
  int whole_parameters; /* 1: each call is for exactly one parameter */
  /* Returns 0; anything else ends the step with LOCKSTEP_ERROR_CALLBACK, and what was updated
   * before stays so. Must do the same on all ranks. */
  int (*update)(void* context, const lockstep_update* update);
  void* context; /* must outlive the optimizer */
} lockstep_rule;

/* With options as above. Sharded over the ranks of a communicator, collectively, unless that is
 * NULL. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_create_custom(lockstep_parameters parameters,
                                                               const lockstep_rule* rule,
                                                               const lockstep_option* options,
                                                               lockstep_communicator communicator,
                                                               lockstep_optimizer* result);

/* Several optimizers of different parameters as one: state and groups of member i go by
 * "names[i].name". A step is a step of each. Not for LBFGS. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_combine(int64_t count, const char* const* names,
                                                         const lockstep_optimizer* optimizers,
                                                         lockstep_optimizer* result);

/* Adds a group of parameters with options of its own: params; name, a text; and hyper-parameters,
 * of which those that are not given are as the optimizer's. Collective where it is sharded. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_add_group(lockstep_optimizer optimizer,
                                                           const lockstep_option* options);
/* Sets hyper-parameters of a group by its name, from "0", or of all groups with NULL. Alike on all
 * ranks. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_set(lockstep_optimizer optimizer,
                                                     const char* group,
                                                     const lockstep_option* options);
LOCKSTEP_CALL lockstep_status lockstep_optimizer_get(lockstep_optimizer optimizer,
                                                     const char* group, const char* field,
                                                     double* result);
/* Clips gradients in each step: value, norm, global_norm, norm_type = 2, non_finite = error | skip
 * | ignore. With NULL no longer. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_clip(lockstep_optimizer optimizer,
                                                      const lockstep_option* options);

typedef struct lockstep_step_report {
  int applied;          /* 0 where the step was skipped, for a gradient that is not finite */
  int empty;            /* 1 where no parameter had a gradient */
  double gradient_norm; /* before clipping; NaN where nobody looked */
} lockstep_step_report;

/* Updates the parameters that have a gradient. Options: gradient_scale = 1; allow_none = 0, 1 where
 * it is no error that no parameter has one; non_finite, as for clipping. `report` may be NULL.
 * Collective where the optimizer is sharded. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_step(lockstep_optimizer optimizer,
                                                      const lockstep_option* options,
                                                      lockstep_step_report* report);

typedef struct lockstep_stepping_handle* lockstep_stepping;

/* While it lives, each backward steps every parameter as soon as its gradient is final, and leaves
 * no gradients; lockstep_optimizer_step() is not called, nor are hooks. With a reducer, and a
 * sharded optimizer of the same parameters, each rank steps its share in the course of the
 * reduction, which a reducer without keep_gradients needs: collective. With NULL for the reducer
 * it is not. Options as for lockstep_optimizer_step(). */
LOCKSTEP_CALL lockstep_status lockstep_stepping_create(lockstep_optimizer optimizer,
                                                       lockstep_reducer reducer,
                                                       const lockstep_option* options,
                                                       lockstep_stepping* result);

/* Computes the loss and its gradients. Returns 0; anything else makes the step
 * LOCKSTEP_ERROR_CALLBACK. */
typedef int (*lockstep_closure)(void* context, double* loss);
/* A step that calls a closure, several times where it searches along a line, as LBFGS does. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_step_closure(lockstep_optimizer optimizer,
                                                              lockstep_closure closure,
                                                              void* context, double* loss);
LOCKSTEP_CALL lockstep_status lockstep_optimizer_zero_gradients(lockstep_optimizer optimizer);

/* What an optimizer keeps of a parameter, in the memory that it works in: numbers of the
 * parameter's shape, such as "exp_avg" of Adam, or in a sharded one those of this rank's share.
 * LOCKSTEP_ERROR_NAME where there is none of that name yet. */
LOCKSTEP_CALL lockstep_status lockstep_optimizer_slot(lockstep_optimizer optimizer,
                                                      const char* parameter, const char* slot,
                                                      lockstep_array* result);

/* Called around steps. Returns 0; anything else ends the step with LOCKSTEP_ERROR_CALLBACK.
 * `report` is NULL before. */
typedef int (*lockstep_step_hook)(void* context, lockstep_optimizer optimizer,
                                  const lockstep_step_report* report);
LOCKSTEP_CALL lockstep_status lockstep_optimizer_before_step(lockstep_optimizer optimizer,
                                                             lockstep_step_hook hook, void* context,
                                                             int64_t* number);
LOCKSTEP_CALL lockstep_status lockstep_optimizer_after_step(lockstep_optimizer optimizer,
                                                            lockstep_step_hook hook, void* context,
                                                            int64_t* number);
LOCKSTEP_CALL lockstep_status lockstep_optimizer_remove_hook(lockstep_optimizer optimizer,
                                                             int64_t number);

#ifdef __cplusplus
}
#endif

#endif
