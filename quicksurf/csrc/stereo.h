// Depths of one photo from how well patches of it match other photos: PatchMatch (Bleyer et al. 2011) with planes.
//
// Pinholes; u, v are pixels, centres at + 0.5. The hypothesis of a pixel is a plane, written as the inverse of the depth
// along the optical axis, which is linear in pixels on a plane: 1/z (u + i, v + j) = w + a i + b j. Source k sees pixel
// (u, v) of the reference at the homogeneous pixel
//
//     h = A_k (u, v, 1) + b_k w,        A_k = K_k R_k K^-1,  b_k = K_k t_k,  for x_k = R_k x + t_k,
//
// and the pixels around it by the derivative there. Cost of one source: 1 - NCC of WINDOW x WINDOW samples, STEP pixels
// apart, each weighed by e^(-|grey - grey of the centre| / similarity); samples between pixels are bilinear, the frame is
// continued by its border. It is UNSEEN where the centre leaves the frame or lies behind, or a window has no texture: a
// weighted standard deviation below least_contrast grey levels. The cost of a hypothesis is the mean of the n_best least.
//
// A sweep visits the pixels of one colour of a chequerboard, then of the other: each tries the best plane in each of four
// directions, then N_TRIALS changes of what it has, at random within `reach` of the range of inverse depths, and within
// `tilt` for slopes (in tangents); both shrink with every sweep. Numbers are hashes of pixel, sweep and seed, and a pixel
// reads only those of the other colour: the result does not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quicksurf {

constexpr int STEREO_WINDOW = 5, STEREO_STEP = 2, STEREO_MOST_SOURCES = 8;
constexpr float STEREO_UNSEEN = 2.0f;

struct StereoSource {
    const uint8_t* grey;  // [height][width]
    int height, width;
    float transform[3][4];  // [A | b]
};

struct StereoSpec {
    float low, high;  // of inverse depths
    float reach, tilt, shrink;
    float focal;  // pixels: a slope a is the tangent a focal / w
    float similarity, least_contrast;  // grey levels
    int n_best, n_sweeps;
    uint32_t seed;
};

struct StereoMap {
    int height, width;
    const uint8_t* grey;  // [height][width]
    float* planes;        // [3][height][width]: w, a, b; first guesses, improved in place
    float* costs;         // [height][width], overwritten
};

}  // namespace quicksurf
