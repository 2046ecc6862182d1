/* Checkpoints: one file for any number of ranks. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_CHECKPOINT_H
#define LOCKSTEP_BINDINGS_CHECKPOINT_H

#include "lockstep/bindings/base.h"
#include "lockstep/bindings/ranks.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is saved and loaded, each item under its name. */
typedef struct lockstep_items_handle* lockstep_items;
/* The checkpoints of a run in a folder. */
typedef struct lockstep_manager_handle* lockstep_manager;

LOCKSTEP_CALL lockstep_status lockstep_items_create(lockstep_items* result);
/* A model, optimizer, scheduler, reducer or reservoir. */
LOCKSTEP_CALL lockstep_status lockstep_items_add(lockstep_items items, const char* name,
                                                 void* handle);
/* An array of the caller's, which all ranks have alike, in an item of arrays such as "fields". */
LOCKSTEP_CALL lockstep_status lockstep_items_add_array(lockstep_items items, const char* item,
                                                       const char* name,
                                                       const lockstep_array* array);
/* This rank's range of an array that ranks have cut: numbers [begin, begin + count) of it in
 * row-major order, where `whole` has the shape of all of it, and this rank's numbers as data. A
 * load gives each rank its range, however that was cut before. */
LOCKSTEP_CALL lockstep_status lockstep_items_add_range(lockstep_items items, const char* item,
                                                       const char* name,
                                                       const lockstep_array* whole, int64_t begin,
                                                       int64_t count);
/* Numbers of the caller's, which all ranks have alike, in an item of numbers such as "progress". */
LOCKSTEP_CALL lockstep_status lockstep_items_add_integer(lockstep_items items, const char* item,
                                                         const char* name, int64_t* number);
LOCKSTEP_CALL lockstep_status lockstep_items_add_real(lockstep_items items, const char* item,
                                                      const char* name, double* number);

/* Writes all items to a file, after all ranks have been compared. Collective. At any time there is
 * the file of before, or the complete new one. */
LOCKSTEP_CALL lockstep_status lockstep_checkpoint_save(const char* path,
                                                       lockstep_communicator communicator,
                                                       lockstep_items items);
/* Loads all items, on whatever number of ranks has saved them; all of the file is checked before
 * anything changes. Collective. Options:
 *   mode           strict | subset | partial: the file has the same names | may have more items |
 *                  may have and
 *                  lack any
 *   prefix         a text: loads only what has names in items that begin with it
 *   convert_dtype  0: converts numbers of another floating-point type */
LOCKSTEP_CALL lockstep_status lockstep_checkpoint_load(const char* path,
                                                       lockstep_communicator communicator,
                                                       lockstep_items items,
                                                       const lockstep_option* options);

/* Manages a folder. Collective, as all calls below are. Options:
 *   every_steps    0: saves at each multiple of it
 *   every_minutes  0: saves when so long ago
 *   keep_last      3: how many of the newest stay
 *   keep_best      0: how many of those with the best metric stay as well
 *   best           lowest | highest
 *   signal         the number of one that means: save once and stop; may be given several times
 *   poll_every     1: steps between agreements on time and signals
 *   background     0: whether a step returns while its file is being written
 *   when_busy      wait | refuse: what a step that is to save does meanwhile
 *   lock           1: whether other jobs are kept out of the folder */
LOCKSTEP_CALL lockstep_status lockstep_manager_create(const char* folder,
                                                      lockstep_communicator communicator,
                                                      lockstep_items items,
                                                      const lockstep_option* options,
                                                      lockstep_manager* result);
/* Loads the newest sound checkpoint, and tells its step; -1 where there is none. */
LOCKSTEP_CALL lockstep_status lockstep_manager_load_latest(lockstep_manager manager, int64_t* step);
/* The same for the one with the best metric. */
LOCKSTEP_CALL lockstep_status lockstep_manager_load_best(lockstep_manager manager, int64_t* step);
/* After each step, with the number of those that are done: saves where that is due. `metric` and
 * `saved` may be NULL. */
LOCKSTEP_CALL lockstep_status lockstep_manager_step(lockstep_manager manager, int64_t step,
                                                    const double* metric, int* saved);
/* Saves now. */
LOCKSTEP_CALL lockstep_status lockstep_manager_save(lockstep_manager manager, int64_t step,
                                                    const double* metric);
/* Returns when all is on disk. */
LOCKSTEP_CALL lockstep_status lockstep_manager_wait(lockstep_manager manager);
/* Whether a signal has come to any rank, and a step has saved for it. Not collective. */
LOCKSTEP_CALL lockstep_status lockstep_manager_stop_requested(lockstep_manager manager,
                                                              int* result);

#ifdef __cplusplus
}
#endif

#endif
