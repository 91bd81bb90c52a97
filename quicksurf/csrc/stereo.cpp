#include "stereo.h"

#include <algorithm>
#include <cmath>

#include "thread_pool.h"

namespace quicksurf {
namespace {

struct Place {
    float u, v, w;  // pixel, inverse depth
    bool ahead;
};

Place carry(const float (&m)[3][4], const Place& from) {
    float h[3];
    for (int r = 0; r < 3; ++r) h[r] = m[r][0] * from.u + m[r][1] * from.v + m[r][2] + m[r][3] * from.w;
    if (!(h[2] > 1e-6f && from.w > 0)) return {0, 0, 0, false};
    return {h[0] / h[2], h[1] / h[2], from.w / h[2], true};
}

// Where the other's map leads from `place`; not ahead where it knows nothing.
Place lead_back(const DepthCheck& check, const Place& place, const AgreementSpec& spec) {
    const DepthMap& map = check.map;
    if (!(place.ahead && place.u >= 0 && place.v >= 0 && place.u < map.width && place.v < map.height))
        return {0, 0, 0, false};
    const int column = int(place.u), row = int(place.v);
    const size_t n = size_t(map.height) * map.width, at = size_t(row) * map.width + column;
    if (!(map.costs[at] < spec.most_other_cost)) return {0, 0, 0, false};
    const float w = map.planes[at] + map.planes[n + at] * (place.u - column - 0.5f) +
                    map.planes[2 * n + at] * (place.v - row - 0.5f);
    if (!(std::fabs(w - place.w) < spec.most_relative * place.w)) return {0, 0, 0, false};
    return carry(check.back, {place.u, place.v, w, true});
}

// Cosine of the angle between the ray of a pixel and the normal of its plane.
float cosine(const DepthMap& map, const AgreementSpec& spec, const Place& at, float a, float b) {
    const auto& [fx, fy, cx, cy] = spec.intrinsics;
    const float x = (at.u - cx) / fx, y = (at.v - cy) / fy;
    const float normal[3] = {a * fx, b * fy, at.w - a * (at.u - cx) - b * (at.v - cy)};
    const float length = std::sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
    return at.w / (length * std::sqrt(x * x + y * y + 1));
}

void verify_pixel(const DepthMap& map, const std::vector<DepthCheck>& checks, const AgreementSpec& spec, int x, int y,
                  float& inverse_depth, float& spread) {
    const size_t n = size_t(map.height) * map.width, at = size_t(y) * map.width + x;
    const Place own{x + 0.5f, y + 0.5f, map.planes[at], true};
    inverse_depth = spread = 0;
    if (!(map.costs[at] < spec.most_cost && own.w > 0)) return;
    if (!(cosine(map, spec, own, map.planes[n + at], map.planes[2 * n + at]) > spec.least_cosine)) return;
    int agreeing = 0;
    float sum = own.w, shift = 0;
    for (const DepthCheck& check : checks) {
        const Place there = carry(check.there, own), back = lead_back(check, there, spec);
        if (!back.ahead || std::hypot(back.u - own.u, back.v - own.v) >= spec.most_pixels) continue;
        ++agreeing;
        sum += back.w;
        const auto& m = check.there;  // d(pixel) / dw = (b_xy - pixel b_z) / h_z, h_z = w / there.w
        shift = std::max(shift, std::hypot(m[0][3] - there.u * m[2][3], m[1][3] - there.v * m[2][3]) * there.w);
    }
    if (agreeing < spec.n_agreeing || !(shift > 0)) return;
    inverse_depth = sum / (agreeing + 1);
    spread = 1 / shift;
}

}  // namespace

void verify_depths(const DepthMap& map, const std::vector<DepthCheck>& checks, const AgreementSpec& spec,
                   float* inverse_depths, float* spreads) {
    parallel_for(size_t(map.height), [&](size_t y) {
        for (int x = 0; x < map.width; ++x) {
            const size_t at = y * map.width + x;
            verify_pixel(map, checks, spec, x, int(y), inverse_depths[at], spreads[at]);
        }
    });
}

}  // namespace quicksurf
