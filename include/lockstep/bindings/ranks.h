/* MPI: the environment and communicators. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_RANKS_H
#define LOCKSTEP_BINDINGS_RANKS_H

#include <mpi.h>

#include "lockstep/bindings/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lockstep_environment_handle* lockstep_environment;
typedef struct lockstep_communicator_handle* lockstep_communicator;

/* Initialises MPI for calls of one thread at a time, if nobody has; freed, it finalises what it
 * began. For programs that have no MPI_Init of their own. `argc` and `argv` may be NULL. */
LOCKSTEP_CALL lockstep_status lockstep_environment_create(int* argc, char*** argv,
                                                          lockstep_environment* result);

/* A duplicate of the caller's communicator, on which all messages of lockstep travel. Collective.
 * MPI must be initialised. Options, all but the last alike on all ranks:
 *   share_memory  1: ranks of a node may work in memory that they share
 *   node          ranks of one machine with different numbers count as on different nodes
 *   deadline      600: seconds that this rank waits until others come to a collective call and go on with it; then it
 *                 is LOCKSTEP_ERROR_DEADLINE. 0 is for ever. Where it is not given, LOCKSTEP_DEADLINE of the
 *                 environment counts. */
LOCKSTEP_CALL lockstep_status lockstep_communicator_create(MPI_Comm communicator,
                                                           const lockstep_option* options,
                                                           lockstep_communicator* result);
/* The same, of a Fortran handle: an integer, or the MPI_VAL of a type(MPI_Comm). */
LOCKSTEP_CALL lockstep_status lockstep_communicator_create_f(MPI_Fint communicator,
                                                             const lockstep_option* options,
                                                             lockstep_communicator* result);

LOCKSTEP_CALL lockstep_status lockstep_communicator_rank(lockstep_communicator communicator,
                                                         int* result);
LOCKSTEP_CALL lockstep_status lockstep_communicator_size(lockstep_communicator communicator,
                                                         int* result);

/* Frees the duplicate. Collective. What uses it gets LOCKSTEP_ERROR_STATE from then on. One that is
 * not closed is freed in MPI_Finalize(), since lockstep_free() does not wait for other ranks. */
LOCKSTEP_CALL lockstep_status lockstep_communicator_close(lockstep_communicator communicator);

#ifdef __cplusplus
}
#endif

#endif
