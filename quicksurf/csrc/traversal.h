// Rays against boxes, and nerfacc's walk through nested grids, cell by cell.
//
// The walk is nerfacc's own (its csrc/grid.cu), where it differs from march.h: the grid that decides comes from the
// caller's sorted crossings, an empty cell is left with the step length of its beginning, a step may reach beyond its
// box, and step_size <= 0 makes one step of each cell. Unlike nerfacc's, no step lies between boxes that are apart.
// Rays run in parallel.
#pragma once

#include <vector>

#include "packed_scans.h"
#include "rays.h"

namespace quicksurf {

// Where rays enter and leave boxes [n_boxes][6], clamped to [near, far]; `miss` twice where hits is 0. A ray in the
// plane of a face counts as between the faces; touching an edge, a box behind the origin or a ray that is not finite is
// a miss. Outputs [n][n_boxes].
void intersect_boxes(size_t n, const float* origins, const float* directions, size_t n_boxes, const float* boxes,
                     float near, float far, float miss, float* t_mins, float* t_maxs, uint8_t* hits);

struct Traversal {
    Grids grids;
    RayBatch rays;
    const uint8_t* mask;       // [n]; rays where it is 0 are skipped
    const uint8_t* hits;       // [n][m], of grid by ray
    const float* t_sorted;     // [n][2 m], ascending
    std::vector<int64_t> t_indices;  // [n][2 m]: grid g is entered (g) or left (m + g)
    float step_size, cone_angle;
    int64_t steps_limit;  // steps of a ray, <= 0: none
};

// Edges of the steps, a shared one written once; is_left, is_right: it begins, ends a step.
struct StepEdges {
    Chunks room;  // where each ray may write, and how much
    float* ts;
    int64_t* ray_indices;
    uint8_t *is_left, *is_right;
    int64_t* counts;  // [n], what it wrote
};

struct StepMids {
    Chunks room;
    float* ts;
    int64_t* ray_indices;
    uint8_t* is_valid;
    int64_t* counts;
};

// First pass: edges and middles of each ray. Returns false if a ray would take more than 2^20 steps.
bool count_steps(const Traversal&, int64_t* n_edges, int64_t* n_mids);
// Second pass; t_ends [n] is where each ray stopped. Returns false if a ray's room is too small; what was in room
// stays.
bool fill_steps(const Traversal&, const StepEdges&, const StepMids&, float* t_ends);

}  // namespace quicksurf
