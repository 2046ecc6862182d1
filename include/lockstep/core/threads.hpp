#pragma once

#pragma GCC visibility push(default)

namespace lockstep {

/// How many threads of this process share a product of matrices or a convolution. The first call takes
/// the number from the environment variable LOCKSTEP_THREADS; where that is not set it is 1, the
/// thread that calls, and no other is ever started. With any number a result has the same bits.
///
/// The threads call no MPI and take no signals, have the floating-point mode of who calls, and sleep
/// between the calls. They need cores of their own: mpirun --map-by slot:PE=4, say. Where the system
/// has not so many, fewer share the work. A process that forks has none in its child.
///
/// OptionError where the variable is no number from 1 to 1024.
int threads();

/// Sets that number, from the next call on. OptionError unless it is from 1 to 1024.
void set_threads(int count);

}  // namespace lockstep

#pragma GCC visibility pop
