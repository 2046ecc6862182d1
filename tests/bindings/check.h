/* Tests that are written in C: each is a function that RUN() calls on all ranks, and fails where a
 * check has failed on any of them. */
#ifndef TESTS_BINDINGS_CHECK_H
#define TESTS_BINDINGS_CHECK_H

#include <lockstep.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;
static int own_rank = 0, rank_count = 1;

static void fail(const char* file, int line, const char* what, const char* more) {
  fprintf(stderr, "[rank %d] %s:%d: %s%s%s\n", own_rank, file, line, what, *more ? ": " : "", more);
  ++failures;
}

#define CHECK(condition) \
  ((condition) ? (void)0 : fail(__FILE__, __LINE__, "expected " #condition, ""))

/* A call that succeeds; the program ends where it does not, since what follows needs it. */
#define OK(call)                                              \
  do {                                                        \
    if ((call) != LOCKSTEP_OK) {                              \
      fail(__FILE__, __LINE__, #call, lockstep_last_error()); \
      MPI_Abort(MPI_COMM_WORLD, 1);                           \
    }                                                         \
  } while (0)

/* A call that fails with a status, and a message that contains a text. */
#define FAILS(call, status, text)                                                            \
  do {                                                                                       \
    const lockstep_status found_status = (call);                                             \
    if (found_status != (status))                                                            \
      fail(__FILE__, __LINE__, "another status than " #status " of " #call,                  \
           found_status == LOCKSTEP_OK ? "none" : lockstep_last_error());                    \
    else if (strstr(lockstep_last_error(), (text)) == NULL)                                  \
      fail(__FILE__, __LINE__, "expected '" text "' in the message", lockstep_last_error()); \
  } while (0)

/* A file of this program on so many ranks, beside which others run; overwritten by the next call. */
static inline const char* own_path(const char* name) {
  static char text[100];
  snprintf(text, sizeof(text), "lockstep-c-%d-%s", rank_count, name);
  return text;
}

static inline int is_near(double a, double b, double tolerance) {
  return fabs(a - b) <= tolerance * (1 + fabs(b));
}

static inline lockstep_array array_f64(double* data, int rank, int64_t a, int64_t b) {
  lockstep_array array = {LOCKSTEP_F64, rank, {a, b}, data};
  return array;
}

static inline void begin(int* argc, char*** argv) {
  MPI_Init(argc, argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &own_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &rank_count);
}

static int passed_tests = 0, failed_tests = 0;

#define RUN(test, ...)                                                            \
  do {                                                                            \
    failures = 0;                                                                 \
    test(__VA_ARGS__);                                                            \
    MPI_Allreduce(MPI_IN_PLACE, &failures, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);  \
    if (own_rank == 0) printf("%s %s\n", failures == 0 ? "ok  " : "FAIL", #test); \
    failures == 0 ? ++passed_tests : ++failed_tests;                              \
  } while (0)

/* Ends MPI, and gives the status of the program. */
static inline int end(void) {
  if (own_rank == 0) printf("%d passed, %d failed, 0 skipped\n", passed_tests, failed_tests);
  MPI_Finalize();
  return failed_tests == 0 ? 0 : 1;
}

#endif
