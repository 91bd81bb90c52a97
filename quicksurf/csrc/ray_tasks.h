// Rays handed to the pool in tasks of many.
#pragma once

#include <algorithm>
#include <cstddef>

#include "thread_pool.h"

namespace quicksurf {

constexpr size_t MARCHED_RAYS_PER_TASK = 256;
constexpr size_t SCANNED_RAYS_PER_TASK = 2048;  // a scan of fewer takes less than to wake a sleeping thread

// Runs fn(ray) for every ray; calls for different rays may run at the same time.
template <class Fn>
void for_rays(size_t n_rays, size_t n_per_task, Fn&& fn) {
    parallel_for((n_rays + n_per_task - 1) / n_per_task, [&](size_t task) {
        const size_t end = std::min(n_rays, (task + 1) * n_per_task);
        for (size_t r = task * n_per_task; r < end; ++r) fn(r);
    });
}

}  // namespace quicksurf
