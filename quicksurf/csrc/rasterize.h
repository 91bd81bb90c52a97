// Z-buffer rasterisation of projected triangles: which face each pixel sees, and how far away.
//
// A pixel (column i, row j) is covered by a triangle when its centre p = (i + 0.5, j + 0.5) lies inside, by the edge
// functions E_ab(p) = (b_x - a_x)(p_y - a_y) - (b_y - a_y)(p_x - a_x); centres exactly on an edge belong to the
// triangle whose top or left edge it is, so that neighbours share no pixel and leave none out. Depth is perspective
// correct: 1/z is linear on the screen, 1/z(p) = sum_k E_k(p) / z_k / sum_k E_k(p) with E_k opposite to vertex k.
// The nearest face wins; at equal depth the one of lower index. Both sides of a face are drawn.
//
// Faces with a vertex at z <= 1e-6 (behind the camera; there is no clipping) or with a coordinate that is not finite
// are left out. Finiteness is tested on bits, so the kernel is safe under -ffast-math.
#pragma once

#include <cstdint>

namespace quicksurf {

// vertices     [n_vertices, 3]   pixel x, pixel y, depth z
// faces        [n_faces, 3]      vertex indices; the caller has checked their range
// depth        [height, width]   overwritten; +inf where no face is seen
// face_indices [height, width]   overwritten; -1 where no face is seen
//
// The image is cut into bands of rows, one task of the thread pool each: no pixel is written by two threads and the
// result does not depend on the number of threads. Each band walks all faces, so there is one band a thread.
void rasterize(const float* vertices, const int32_t* faces, int64_t n_faces, int width, int height, float* depth,
               int32_t* face_indices);

}  // namespace quicksurf
