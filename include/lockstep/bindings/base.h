/* What all of the C interface has in common; see lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_BASE_H
#define LOCKSTEP_BINDINGS_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define LOCKSTEP_CALL __attribute__((visibility("default"), warn_unused_result))
#define LOCKSTEP_TEXT __attribute__((visibility("default")))
#else
#define LOCKSTEP_CALL
#define LOCKSTEP_TEXT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers never change. */
typedef enum lockstep_status {
  LOCKSTEP_OK = 0,
  LOCKSTEP_ERROR_OTHER = 1,  /* such as a lack of memory */
  LOCKSTEP_ERROR_SHAPE = 2,  /* extents do not fit each other */
  LOCKSTEP_ERROR_DTYPE = 3,  /* another element type than the call takes */
  LOCKSTEP_ERROR_NAME = 4,   /* a name is unknown, missing or used twice */
  LOCKSTEP_ERROR_OPTION = 5, /* an option or argument is outside its range */
  LOCKSTEP_ERROR_STATE = 6,  /* the call came in a state that does not allow it */
  LOCKSTEP_ERROR_DATA = 7,   /* a file of data is missing, damaged or something else */
  LOCKSTEP_ERROR_CHECKPOINT =
      8,                        /* a checkpoint is missing, damaged, or belongs to something else */
  LOCKSTEP_ERROR_MPI = 9,       /* a call of MPI failed */
  LOCKSTEP_ERROR_HANDLE = 10,   /* a handle is NULL, was freed, or is of another kind */
  LOCKSTEP_ERROR_CALLBACK = 11, /* a function of the caller's said so */
  LOCKSTEP_ERROR_DEADLINE = 12  /* other ranks have not come as long as this one waits for them */
} lockstep_status;

/* The message of the last call of this thread that failed; "" where none has. Valid until another
 * one fails. */
LOCKSTEP_TEXT const char* lockstep_last_error(void);
/* Whether all ranks of the communicator were told of that error. */
LOCKSTEP_TEXT int lockstep_last_error_is_collective(void);
/* "0.1.0" */
LOCKSTEP_TEXT const char* lockstep_version(void);

/* Ends an object; NULL is none. Not collective. */
LOCKSTEP_CALL lockstep_status lockstep_free(void* handle);

typedef enum lockstep_dtype {
  LOCKSTEP_F32 = 0,
  LOCKSTEP_F64 = 1,
  LOCKSTEP_I64 = 2,
  LOCKSTEP_U8 = 3
} lockstep_dtype;

#define LOCKSTEP_MAX_RANK 8
/* In the place of a rank: memory that is not contiguous, such as a section of an array of another language.
 * LOCKSTEP_ERROR_SHAPE in every call, on all ranks of a collective one. */
#define LOCKSTEP_NOT_CONTIGUOUS (-1000)

/* Dense numbers in memory of the caller's, or of lockstep where a call returns them. */
typedef struct lockstep_array {
  lockstep_dtype dtype;
  int rank;                           /* number of extents, 0 to LOCKSTEP_MAX_RANK */
  int64_t extents[LOCKSTEP_MAX_RANK]; /* outermost first */
  void* data;                         /* may be NULL where an extent is 0 */
} lockstep_array;

typedef struct lockstep_option {
  const char* name;
  double value;     /* integers up to 2^53, and 0 or 1 for truth values */
  const char* text; /* where it is not NULL, the value is this text */
} lockstep_option;

#define LOCKSTEP_NUMBER(name, value) \
  { (name), (value), NULL }
#define LOCKSTEP_WORD(name, text) \
  { (name), 0, (text) }
/* Options for a call: LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 1e-3), LOCKSTEP_WORD("params", "0.*")) */
#define LOCKSTEP_OPTIONS(...) ((const lockstep_option[]){__VA_ARGS__, {NULL, 0, NULL}})

typedef enum lockstep_log_level {
  LOCKSTEP_LOG_INFO = 0,
  LOCKSTEP_LOG_WARNING = 1
} lockstep_log_level;

typedef void (*lockstep_log_callback)(void* context, lockstep_log_level level, const char* message);

/* Where notices of this process go, from any thread; nowhere with NULL, which is the default:
 * lockstep never prints. */
LOCKSTEP_CALL lockstep_status lockstep_set_log_callback(lockstep_log_callback callback,
                                                        void* context);

#ifdef __cplusplus
}
#endif

#endif
