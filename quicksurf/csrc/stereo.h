// Depths of one photo from how well patches of it match other photos: PatchMatch (Bleyer et al. 2011) with planes.
//
// Pinholes; u, v are pixels, centres at + 0.5. The hypothesis of a pixel is a plane, written as the inverse of the
// depth along the optical axis, which is linear in pixels on a plane: 1/z (u + i, v + j) = w + a i + b j. Source k sees
// pixel (u, v) of the reference at the homogeneous pixel
//
//     h = A_k (u, v, 1) + b_k w,        A_k = K_k R_k K^-1,  b_k = K_k t_k,  for x_k = R_k x + t_k,
//
// and the pixels around it by the derivative there. Cost of one source: 1 - NCC of WINDOW x WINDOW samples, STEP pixels
// apart, each weighed by e^(-|grey - grey of the centre| / similarity); samples between pixels are bilinear, the frame
// is continued by its border. It is UNSEEN where the centre leaves the frame or lies behind, or a window has no
// texture: a weighted standard deviation below least_contrast grey levels. The cost of a hypothesis is the mean of the
// n_best least.
//
// A sweep visits the pixels of one colour of a chequerboard, then of the other: each tries the best plane in each of
// four directions, then N_TRIALS changes of what it has, at random within `reach` of the range of inverse depths, and
// within `tilt` for slopes (in tangents); both shrink with every sweep. Numbers are hashes of pixel, sweep and seed,
// and a pixel reads only those of the other colour: the result does not depend on the number of threads.
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
    float* planes;  // [3][height][width]: w, a, b; first guesses, improved in place
    float* costs;  // [height][width], overwritten
};

// Planes and costs of one photo, as above.
struct DepthMap {
    int height, width;
    const float *planes, *costs;
};

// How the map of one photo is checked against that of another.
struct DepthCheck {
    DepthMap map;
    float there[3][4], back[3][4];  // [A | b] from the photo to the other, and from the other to the photo
};

struct AgreementSpec {
    float intrinsics[4];  // fx, fy, cx, cy of the photo
    float most_cost, most_other_cost;
    float most_pixels, most_relative;  // between a pixel and where the other's depth leads back to; between depths
    float least_cosine;  // of the angle between the ray and the plane's normal
    int n_agreeing;
};

// Inverse depths that at least n_agreeing other photos confirm: the mean of all that agree; 0 elsewhere.
//
// A pixel (u, v, w) lands on the other photo at h = A (u, v, 1) + b w, at the inverse depth w / h_z; the other's plane
// there leads back the same way. spreads: the relative change of depth that moves a confirming photo's pixel by one,
// the least of all. Both outputs are [height][width] and overwritten; one task a row.
void verify_depths(const DepthMap& map, const std::vector<DepthCheck>& checks, const AgreementSpec& spec,
                   float* inverse_depths, float* spreads);

}  // namespace quicksurf
