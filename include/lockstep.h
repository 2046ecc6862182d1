/* The C interface of lockstep: data-parallel training on MPI.
 *
 * Every call but lockstep_last_error() returns a lockstep_status, and the compiler warns where one
 * is dropped. Where it is not LOCKSTEP_OK, lockstep_last_error() has a message for people, nothing
 * has changed unless a call says otherwise, and its results are untouched. No C++ exception leaves
 * a call, and none ends the program.
 *
 *     lockstep_communicator ranks;
 *     if (lockstep_communicator_create(solver_comm, NULL, &ranks) != LOCKSTEP_OK) {
 *       fprintf(stderr, "%s\n", lockstep_last_error());
 *
 * Handles. Objects are handles, which a create call makes and lockstep_free() ends, in any order:
 * an object keeps what it needs of others. A handle that is NULL, was freed or is of another kind
 * is LOCKSTEP_ERROR_HANDLE.
 *
 * Collective calls are made by all ranks of the communicator in the same order, as in MPI; each
 * says so. What goes wrong in one of them on any rank, all ranks are told, with the same message.
 *
 * Options are an array of names and values that ends with an entry without a name, or NULL for the
 * defaults: LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 1e-3), LOCKSTEP_NUMBER("amsgrad", 1)). An option
 * with several values is given several times.
 *
 * Arrays are row-major, with the sample as the first index: (samples, features). A Fortran array of
 * (features, samples) is the same memory. Nothing is copied, and pointers stay the caller's, unless
 * a call says otherwise.
 *
 * Texts are in UTF-8. A const char* that a call returns lives as long as the object that it asks.
 *
 * Threads: an object is for one thread at a time, and collective calls are for threads that may
 * call MPI. The last error is that of the calling thread.
 *
 * MPI: lockstep works on duplicates of the communicators that it is given, and touches no other. It
 * initialises MPI only in lockstep_environment_create(), if nobody has. After MPI_Finalize() calls
 * that need ranks are LOCKSTEP_ERROR_STATE; lockstep_free() works. */
#ifndef LOCKSTEP_H
#define LOCKSTEP_H

#include "lockstep/bindings/base.h"
#include "lockstep/bindings/checkpoint.h"
#include "lockstep/bindings/model.h"
#include "lockstep/bindings/optimizer.h"
#include "lockstep/bindings/parameters.h"
#include "lockstep/bindings/ranks.h"
#include "lockstep/bindings/schedule.h"
#include "lockstep/bindings/training.h"

#endif
