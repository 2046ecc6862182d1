/* Training in the time that a simulation has for it, on snapshots that it shows. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_TRAINING_H
#define LOCKSTEP_BINDINGS_TRAINING_H

#include "lockstep/bindings/model.h"
#include "lockstep/bindings/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A random sample, over all ranks, of the snapshots that a simulation has shown. */
typedef struct lockstep_reservoir_handle* lockstep_reservoir;
/* Runs steps of training. */
typedef struct lockstep_trainer_handle* lockstep_trainer;

/* For `capacity` snapshots over all ranks, of which each is an input and a target of the shapes and
 * dtypes of these arrays, whose data is not looked at. Collective. Option: seed = 0. */
LOCKSTEP_CALL lockstep_status lockstep_reservoir_create(
    lockstep_communicator communicator, int64_t capacity, const lockstep_array* input,
    const lockstep_array* target, const lockstep_option* options, lockstep_reservoir* result);
/* Shows snapshots of this rank: inputs of (n, …), targets of (n, …), which are copied as far as
 * they are kept. Each that a rank has shown is kept with the same probability. Not collective. */
LOCKSTEP_CALL lockstep_status lockstep_reservoir_add(lockstep_reservoir reservoir,
                                                     const lockstep_array* inputs,
                                                     const lockstep_array* targets);
/* This rank's part of a batch of so many snapshots of all that any rank has shown, each as likely
 * as any other; maybe empty. Collective. The memory is the reservoir's, until the next draw. */
LOCKSTEP_CALL lockstep_status lockstep_reservoir_draw(lockstep_reservoir reservoir, int64_t samples,
                                                      lockstep_array* inputs,
                                                      lockstep_array* targets);
/* Snapshots that this rank keeps, and that it was shown. */
LOCKSTEP_CALL lockstep_status lockstep_reservoir_size(lockstep_reservoir reservoir,
                                                      int64_t* result);
LOCKSTEP_CALL lockstep_status lockstep_reservoir_seen(lockstep_reservoir reservoir,
                                                      int64_t* result);

/* Trains a replica. A step forgets gradients, computes those of a batch, and makes a step of the
 * optimizer, and of the scheduler unless that is NULL. Batches have `samples` snapshots of the
 * reservoir over all ranks; with NULL for that lockstep_trainer_step() is given them. */
LOCKSTEP_CALL lockstep_status lockstep_trainer_create(lockstep_replica replica,
                                                      lockstep_optimizer optimizer,
                                                      const lockstep_loss* loss,
                                                      lockstep_scheduler scheduler,
                                                      lockstep_reservoir reservoir, int64_t samples,
                                                      lockstep_trainer* result);
/* A step of training of the caller's own, collective, which tells its mean loss over this rank's
 * samples and their number. Returns 0; anything else ends training with LOCKSTEP_ERROR_CALLBACK,
 * and must be on all ranks. */
typedef int (*lockstep_train_function)(void* context, double* loss, int64_t* samples);
LOCKSTEP_CALL lockstep_status lockstep_trainer_create_function(lockstep_communicator communicator,
                                                               lockstep_train_function step,
                                                               void* context,
                                                               lockstep_trainer* result);

/* One step with this rank's samples of a batch: NULL, or extents of 0, where it has none.
 * `mean_loss`, which may be NULL, is that over these. Collective. */
LOCKSTEP_CALL lockstep_status lockstep_trainer_step(lockstep_trainer trainer,
                                                    const lockstep_array* inputs,
                                                    const lockstep_array* targets,
                                                    double* mean_loss);

typedef struct lockstep_train_report {
  int64_t steps;
  double seconds;
  double loss; /* mean over the samples of all ranks and steps; NaN where there were none */
} lockstep_train_report;

/* So many steps. Collective. `report` may be NULL. */
LOCKSTEP_CALL lockstep_status lockstep_trainer_train(lockstep_trainer trainer, int64_t steps,
                                                     lockstep_train_report* report);
/* As many steps as fit into so many seconds on the slowest rank, by what the last ones took: the
 * same number on all. Of the first two nobody knows, so they are made in any case. Collective.
 * `report` may be NULL. */
LOCKSTEP_CALL lockstep_status lockstep_trainer_train_for(lockstep_trainer trainer, double seconds,
                                                         lockstep_train_report* report);

#ifdef __cplusplus
}
#endif

#endif
