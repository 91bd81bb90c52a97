// Rays handed to the pool in tasks of a few hundred.
#pragma once

#include <algorithm>
#include <cstddef>

#include "thread_pool.h"

namespace quicksurf {

constexpr size_t RAYS_PER_TASK = 256;

// Runs fn(ray) for every ray; calls for different rays may run at the same time.
template <class Fn>
void for_rays(size_t n_rays, Fn&& fn) {
    parallel_for((n_rays + RAYS_PER_TASK - 1) / RAYS_PER_TASK, [&](size_t task) {
        const size_t end = std::min(n_rays, (task + 1) * RAYS_PER_TASK);
        for (size_t r = task * RAYS_PER_TASK; r < end; ++r) fn(r);
    });
}

}  // namespace quicksurf
