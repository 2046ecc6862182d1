/* Hyper-parameters that follow the step. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_SCHEDULE_H
#define LOCKSTEP_BINDINGS_SCHEDULE_H

#include "lockstep/bindings/optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lockstep_schedule_handle* lockstep_schedule;
typedef struct lockstep_scheduler_handle* lockstep_scheduler;

/* A schedule by name, with the options that docs/optimizers.md has: constant, step, multi_step
 * (with `milestones` several times), exponential, linear, cosine, cosine_restarts, polynomial,
 * one_cycle, one_cycle_momentum, inverse_sqrt, on_plateau. */
LOCKSTEP_CALL lockstep_status lockstep_schedule_create(const char* name,
                                                       const lockstep_option* options,
                                                       lockstep_schedule* result);
/* The base value times a function of the step, from 0: alike on all ranks. */
LOCKSTEP_CALL lockstep_status lockstep_schedule_create_function(
    double (*factor)(void* context, int64_t step), void* context, lockstep_schedule* result);
/* Rises from `start` times what `next` begins with in so many steps, and then is `next`. */
LOCKSTEP_CALL lockstep_status lockstep_schedule_warm_up(int64_t steps, double start,
                                                        lockstep_schedule next,
                                                        lockstep_schedule* result);
/* One after another: schedule i until step until[i], the last for ever, so that there are count - 1
 * of these. */
LOCKSTEP_CALL lockstep_status lockstep_schedule_sequence(int64_t count,
                                                         const lockstep_schedule* schedules,
                                                         const int64_t* until,
                                                         lockstep_schedule* result);
/* All at once: the base of each is the value of the one before. */
LOCKSTEP_CALL lockstep_status lockstep_schedule_chain(int64_t count,
                                                      const lockstep_schedule* schedules,
                                                      lockstep_schedule* result);

/* Sets a hyper-parameter, "lr" where `field` is NULL, of a group, or all groups where that is NULL,
 * step by step; that of step 0 at once. One for each hyper-parameter. */
LOCKSTEP_CALL lockstep_status lockstep_scheduler_create(lockstep_optimizer optimizer,
                                                        lockstep_schedule schedule,
                                                        const char* field, const char* group,
                                                        lockstep_scheduler* result);
/* Goes on by a step, after the optimizer's. `metric` is for schedules that want one, and else NULL. */
LOCKSTEP_CALL lockstep_status lockstep_scheduler_step(lockstep_scheduler scheduler,
                                                      const double* metric);
LOCKSTEP_CALL lockstep_status lockstep_scheduler_last_step(lockstep_scheduler scheduler,
                                                           int64_t* result);

#ifdef __cplusplus
}
#endif

#endif
