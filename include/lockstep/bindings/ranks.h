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
typedef struct lockstep_watchdog_handle* lockstep_watchdog;

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

/* A thread of each rank that calls no MPI, and that the others ask where their ranks are. Where a deadline passes on a rank,
 * one report of all ranks is printed on stderr, before the call returns LOCKSTEP_ERROR_DEADLINE. For programs that have
 * an MPI_Init of their own: lockstep_environment_create() makes one, if it has begun MPI. One a process, made by the
 * thread whose functions are to be reported; freed locally. Collective. Options:
 *   signal  0: a number, such as SIGUSR2, at which one of the ranks that get it prints such a report at any time
 *   grace   0: seconds after a deadline until the process is ended, if the program or MPI_Abort has not done so; 0 is never */
LOCKSTEP_CALL lockstep_status lockstep_watchdog_create(lockstep_communicator communicator,
                                                       const lockstep_option* options,
                                                       lockstep_watchdog* result);

#ifdef __cplusplus
}
#endif

#endif
