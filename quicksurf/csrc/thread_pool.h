// One pool of worker threads for all kernels of the package.
//
// Workers sleep on a condition variable while there is nothing to do: a second runtime that spins beside torch's own
// OpenMP would take the processor from it (measured: a step 3.6 times slower).
// Tasks are handed out dynamically, so a stolen core slows a call down but does not double it. Kernels therefore tie
// every partial sum to a task, never to a thread: results are bit-identical for any number of threads.
#pragma once

#include <cstddef>
#include <functional>

namespace quicksurf {

// Runs fn(task) for task = 0 .. n_tasks-1 on the pool and the calling thread; returns when all are done.
// The first exception that leaves fn is thrown again here once all tasks have ended. Calls from two Python threads are
// serialised; nested calls run inline.
void parallel_for(size_t n_tasks, const std::function<void(size_t)>& fn);

// CPUs this process may use: affinity mask, then the cgroup quota rounded up.
int usable_cpus();

int num_threads();
void set_num_threads(int n);  // n >= 1; takes effect at the next parallel_for

}  // namespace quicksurf
