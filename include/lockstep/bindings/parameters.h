/* Parameters by name, and what reduces their gradients over ranks. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_PARAMETERS_H
#define LOCKSTEP_BINDINGS_PARAMETERS_H

#include "lockstep/bindings/base.h"
#include "lockstep/bindings/ranks.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A list of named parameters, in order. */
typedef struct lockstep_parameters_handle* lockstep_parameters;
typedef struct lockstep_reducer_handle* lockstep_reducer;

/* An empty list. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_create(lockstep_parameters* result);
/* Adds a parameter that lives in the caller's array, of f32 or f64, which must outlive all objects
 * that have it. It stays there: the array is read and written in place, and copied nowhere but into
 * a reduction. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_borrow(lockstep_parameters parameters,
                                                         const char* name,
                                                         const lockstep_array* array);
/* Adds a parameter in memory of lockstep, with a copy of the array's numbers. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_add(lockstep_parameters parameters,
                                                      const char* name,
                                                      const lockstep_array* array);

LOCKSTEP_CALL lockstep_status lockstep_parameters_count(lockstep_parameters parameters,
                                                        int64_t* result);
/* The name of parameter `index`, from 0. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_name(lockstep_parameters parameters,
                                                       int64_t index, const char** result);

/* The value, to read and write in place. Its memory is there as long as the parameter, but moves
 * when a replica or reducer with the parameter is created or ends; a borrowed one stays. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_value(lockstep_parameters parameters,
                                                        const char* name, lockstep_array* result);
/* The gradient, to write: zeros where there was none. Its memory is this rank's alone, and moves as
 * the value's does. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_gradient(lockstep_parameters parameters,
                                                           const char* name,
                                                           lockstep_array* result);
/* The gradient, only to read: after a reduction the memory that the ranks of a node share, without
 * a copy. LOCKSTEP_ERROR_STATE where there is none. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_read_gradient(lockstep_parameters parameters,
                                                                const char* name,
                                                                lockstep_array* result);
LOCKSTEP_CALL lockstep_status lockstep_parameters_has_gradient(lockstep_parameters parameters,
                                                               const char* name, int* result);
/* Forgets all gradients. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_zero_gradients(lockstep_parameters parameters);
/* Whether a parameter is trained, alike on all ranks. */
LOCKSTEP_CALL lockstep_status lockstep_parameters_set_requires_gradient(
    lockstep_parameters parameters, const char* name, int requires_gradient);

/* Averages the gradients of parameters over all ranks. Collective; names and shapes are compared
 * over the ranks. Options, alike on all ranks, with what is the default first:
 *   reduction       mean | sum, of weighted gradients
 *   missing         zero | leave_out | error: what becomes of gradients that some ranks have not
 *   bucket_bytes    262144: how much is reduced at a time
 *   predivide       1: divides gradients before they are summed
 *   wire            full | fp16 | bf16: the format between nodes
 *   compression     none | top_k, with fraction (0.05) and least_size (1024) |
 *                   power_sgd, with rank (4) and least_factor (2): between nodes
 *   keep_gradients  1 */
LOCKSTEP_CALL lockstep_status lockstep_reducer_create(lockstep_parameters parameters,
                                                      lockstep_communicator communicator,
                                                      const lockstep_option* options,
                                                      lockstep_reducer* result);
/* What the gradients of this rank count, such as its number of cells or samples; 1 by default, and
 * 0 where it has none. */
LOCKSTEP_CALL lockstep_status lockstep_reducer_set_weight(lockstep_reducer reducer, double weight);
/* This rank has written its gradient where lockstep_parameters_gradient() says, and leaves it alone
 * until finish() has returned. The reduction begins as soon as it can. */
LOCKSTEP_CALL lockstep_status lockstep_reducer_mark_ready(lockstep_reducer reducer,
                                                          const char* name);
/* Ends the reduction: each gradient is the mean or sum over ranks. Collective. */
LOCKSTEP_CALL lockstep_status lockstep_reducer_finish(lockstep_reducer reducer);
/* While set, backwards add up on this rank and nothing is reduced; alike on all ranks. */
LOCKSTEP_CALL lockstep_status lockstep_reducer_set_accumulating(lockstep_reducer reducer,
                                                                int accumulating);
/* Forgets, on this rank, what has come together since the last reduction. */
LOCKSTEP_CALL lockstep_status lockstep_reducer_discard(lockstep_reducer reducer);
/* Seconds that this rank has waited for others in reductions so far. */
LOCKSTEP_CALL lockstep_status lockstep_reducer_waited(lockstep_reducer reducer, double* result);

#ifdef __cplusplus
}
#endif

#endif
