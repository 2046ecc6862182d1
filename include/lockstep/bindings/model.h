/* Models of layers, their replicas on all ranks, and inference. See lockstep.h. */
#ifndef LOCKSTEP_BINDINGS_MODEL_H
#define LOCKSTEP_BINDINGS_MODEL_H

#include "lockstep/bindings/base.h"
#include "lockstep/bindings/parameters.h"
#include "lockstep/bindings/ranks.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Layers one after another; layer i has the parameters "i.weight", "i.bias" and so on. */
typedef struct lockstep_model_handle* lockstep_model;
/* A model whose gradients are averaged over ranks. */
typedef struct lockstep_replica_handle* lockstep_replica;

/* A model without layers. */
LOCKSTEP_CALL lockstep_status lockstep_model_create(lockstep_model* result);
/* A model from a TOML file: `[[layer]]` tables with a `type` and the options below, and at the top
 * a `dtype` for all of them. LOCKSTEP_ERROR_DATA, with file and line, for what is no such file. */
LOCKSTEP_CALL lockstep_status lockstep_model_read(const char* path, lockstep_model* result);
/* Adds a layer by its type. In options, what has a default need not be given; dtype is f32 unless
 * it is f64:
 *   linear      in, out, bias = 1, dtype
 *   conv2d      in, out, kernel, stride = 1, padding = 0, dilation = 1, groups = 1, bias = 1, dtype
 *   max_pool2d  kernel, stride = kernel, padding = 0
 *   batch_norm  channels, eps = 1e-5, momentum = 0.1, affine = 1, track_running_stats = 1, dtype
 *   dropout     p = 0.5
 *   relu, tanh, sigmoid, gelu, silu, softmax, flatten
 * and all others of lockstep/nn/model_file.hpp, with one number where a list may be.
 * LOCKSTEP_ERROR_STATE once the model has a replica, or its parameters were asked for. */
LOCKSTEP_CALL lockstep_status lockstep_model_add(lockstep_model model, const char* type,
                                                 const lockstep_option* options);
/* Draws all parameters anew, by the seed and their names alone. */
LOCKSTEP_CALL lockstep_status lockstep_model_initialize(lockstep_model model, uint64_t seed);
LOCKSTEP_CALL lockstep_status lockstep_model_parameters(lockstep_model model,
                                                        lockstep_parameters* result);

/* Inference: for inputs of (samples, …) writes the model's outputs, of (samples, …), into the
 * caller's array, whose shape and dtype must be those of the result. Not collective. The model is
 * as in evaluation meanwhile: dropout passes everything on, and batch_norm has its running
 * statistics. */
LOCKSTEP_CALL lockstep_status lockstep_model_predict(lockstep_model model,
                                                     const lockstep_array* inputs,
                                                     const lockstep_array* outputs);

/* Makes the model of each rank a replica of rank 0's, and averages gradients from then on.
 * Collective. Options, alike on all ranks: those of lockstep_reducer_create(), and
 *   buffers                 average | broadcast | local: running statistics
 *   synchronise_batch_norm  0
 *   logical_replicas        0: a power of two, by which results have the same bits on any number of
 *                           ranks */
LOCKSTEP_CALL lockstep_status lockstep_replica_create(lockstep_model model,
                                                      lockstep_communicator communicator,
                                                      const lockstep_option* options,
                                                      lockstep_replica* result);
/* What reduces its gradients. */
LOCKSTEP_CALL lockstep_status lockstep_replica_reducer(lockstep_replica replica,
                                                       lockstep_reducer* result);

/* A loss of the caller's: of the model's outputs and the targets of the same samples, which may be
 * only some of a rank's. Writes the derivatives of the mean loss over these samples with respect to
 * each output to `gradient`, which has the shape of outputs, and the mean loss to `loss`. Returns
 * 0; anything else makes the call LOCKSTEP_ERROR_CALLBACK on all ranks. */
typedef int (*lockstep_loss_function)(void* context, const lockstep_array* outputs,
                                      const lockstep_array* targets, void* gradient, double* loss);

typedef struct lockstep_loss {
  const char* name; /* "mean_squared_error", "cross_entropy" (with targets of i64), or NULL */
  lockstep_loss_function function; /* where there is no name */
  void* context;
} lockstep_loss;

/* Computes this rank's gradients of the mean loss over a batch, and averages them over the samples
 * of all ranks. Collective: a rank without samples takes part with NULL for inputs and targets, or
 * extents of 0. `mean_loss`, which may be NULL, is that over this rank's samples. */
LOCKSTEP_CALL lockstep_status lockstep_replica_backward(lockstep_replica replica,
                                                        const lockstep_array* inputs,
                                                        const lockstep_array* targets,
                                                        const lockstep_loss* loss,
                                                        double* mean_loss);

#ifdef __cplusplus
}
#endif

#endif
