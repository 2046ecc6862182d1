/* A program outside the project, in C: one step on eight samples, and the loss after it. */
#include <lockstep.h>
#include <math.h>
#include <stdio.h>

static void check(lockstep_status status) {
  if (status == LOCKSTEP_OK) return;
  fprintf(stderr, "%s\n", lockstep_last_error());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  lockstep_communicator ranks;
  lockstep_model model;
  lockstep_replica replica;
  lockstep_parameters parameters;
  lockstep_optimizer optimizer;
  lockstep_trainer trainer;
  const lockstep_loss loss = {"mean_squared_error", NULL, NULL};
  int rank, size;
  check(lockstep_communicator_create(MPI_COMM_WORLD, NULL, &ranks));
  check(lockstep_communicator_rank(ranks, &rank));
  check(lockstep_communicator_size(ranks, &size));
  check(lockstep_model_create(&model));
  check(lockstep_model_add(model, "linear",
                           LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("in", 4), LOCKSTEP_NUMBER("out", 1))));
  check(lockstep_model_initialize(model, 3));
  check(lockstep_replica_create(model, ranks, NULL, &replica));
  check(lockstep_model_parameters(model, &parameters));
  check(lockstep_optimizer_create(parameters, "Adam", LOCKSTEP_OPTIONS(LOCKSTEP_NUMBER("lr", 0.01)),
                                  &optimizer));
  check(lockstep_trainer_create(replica, optimizer, &loss, NULL, NULL, 0, &trainer));

  /* Eight samples over all ranks, of which each has its part. */
  float x[32], y[8], predicted[8];
  for (int i = 0; i < 32; ++i) x[i] = (float)sin(i);
  for (int i = 0; i < 8; ++i) y[i] = (float)cos(i);
  const int begin = 8 * rank / size, count = 8 * (rank + 1) / size - begin;
  const lockstep_array inputs = {LOCKSTEP_F32, 2, {count, 4}, x + (ptrdiff_t)4 * begin},
                       targets = {LOCKSTEP_F32, 2, {count, 1}, y + begin};
  check(lockstep_trainer_step(trainer, &inputs, &targets, NULL));

  const lockstep_array all = {LOCKSTEP_F32, 2, {8, 4}, x},
                       outputs = {LOCKSTEP_F32, 2, {8, 1}, predicted};
  check(lockstep_model_predict(model, &all, &outputs));
  double mean = 0;
  for (int i = 0; i < 8; ++i) mean += (predicted[i] - y[i]) * (predicted[i] - y[i]) / 8.0;
  if (rank == 0) printf("%d ranks: loss %.5f\n", size, mean);

  check(lockstep_communicator_close(ranks));
  void* objects[] = {trainer, optimizer, parameters, replica, model, ranks};
  for (int i = 0; i < 6; ++i) check(lockstep_free(objects[i]));
  return MPI_Finalize();
}
