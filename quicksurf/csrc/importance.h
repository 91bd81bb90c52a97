// Inverse transform sampling of a piecewise linear distribution along each ray, and the search it rests on.
//
// `keys` are the edges of a ray's intervals, in rising order; chunks as in packed_scans.h. Rays run in parallel.
#pragma once

#include "packed_scans.h"

namespace quicksurf {

// Ray r has n = samples.counts[r] strata of [cdf of its first edge, cdf of its last]. Sample i lies where the linearly
// interpolated cdf is that of stratum i at biases[r] in [0, 1]: 0.5 is the middle. ts [samples]; edges [edges], n + 1
// for a ray with samples: half-way between neighbouring samples, and at the ends as far beyond as the neighbour is
// before, within the ray's keys. One sample gets the whole ray; a ray without keys gets zeros.
void importance_sampling(const Chunks& keys, const float* key_ts, const float* cdfs, const float* biases,
                         const Chunks& samples, float* ts, const Chunks& edges, float* edge_ts);

// For each query its neighbours among the keys of the same ray: keys[left] <= query < keys[right], both clamped to the
// ray's keys. Indices count from the ray's first key when `relative`, else from the first of all. A ray without keys
// gets the index at which its keys would begin.
void searchsorted(const Chunks& keys, const float* key_ts, const Chunks& queries, const float* query_ts, bool relative,
                  int64_t* left, int64_t* right);

}  // namespace quicksurf
