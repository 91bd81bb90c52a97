#include "rasterize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "thread_pool.h"

namespace quicksurf {
namespace {

constexpr float kNearest = 1e-6f;  // smaller depths count as behind the camera

struct Vertex {
    float x, y, z;
};

struct Image {
    int width, height;
    float* depth;
    int32_t* face_indices;
};

bool is_finite(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

bool is_drawable(const Vertex& v) { return is_finite(v.x) && is_finite(v.y) && is_finite(v.z) && v.z > kNearest; }

// The edge function of one side, E(p) = sign * (dx (p_y - y) - dy (p_x - x)). It is always evaluated from the same end
// of the side, whichever triangle asks, so two neighbours get exactly opposite values and no rounding leaves a gap.
struct Edge {
    double x, y, dx, dy, sign;
    bool owns_zero;  // a top or left edge: centres on it are inside

    Edge(const Vertex& a, const Vertex& b) {
        const bool swap = b.y < a.y || (b.y == a.y && b.x < a.x);
        const Vertex &from = swap ? b : a, &to = swap ? a : b;
        x = from.x, y = from.y;
        dx = double(to.x) - from.x, dy = double(to.y) - from.y;
        sign = swap ? -1.0 : 1.0;
        owns_zero = b.y < a.y || (b.y == a.y && b.x > a.x);
    }
    double at(double px, double py) const { return sign * (dx * (py - y) - dy * (px - x)); }
    bool covers(double value) const { return value > 0.0 || (value == 0.0 && owns_zero); }
};

// First and one-past-last index of the pixel centres in [low, high], cut to [begin, end) with begin >= 0. Casts
// truncate; for numbers >= 0 that is floor, and cheaper than the library's where SSE4.1 cannot be taken for granted.
std::pair<int, int> centres_between(float low, float high, int begin, int end) {
    const double first = double(low) - 0.5, last = double(high) - 0.5;
    if (!(first <= end - 1 && last >= begin)) return {begin, begin};
    const double cut = std::max<double>(first, begin);
    const int from = int(cut);
    return {from + (from < cut), int(std::min<double>(last, end - 1)) + 1};
}

void draw(const Vertex& a, const Vertex& b, const Vertex& c, int32_t face, int row_begin, int row_end, Image image) {
    const auto [y0, y1] = centres_between(std::min({a.y, b.y, c.y}), std::max({a.y, b.y, c.y}), row_begin, row_end);
    if (y0 >= y1) return;
    const auto [x0, x1] = centres_between(std::min({a.x, b.x, c.x}), std::max({a.x, b.x, c.x}), 0, image.width);
    if (x0 >= x1) return;
    const Edge ab(a, b), bc(b, c), ca(c, a);
    const double inverse_a = 1.0 / a.z, inverse_b = 1.0 / b.z, inverse_c = 1.0 / c.z;
    for (int y = y0; y < y1; ++y) {
        for (int x = x0; x < x1; ++x) {
            const double px = x + 0.5, py = y + 0.5;
            const double at_c = ab.at(px, py), at_a = bc.at(px, py), at_b = ca.at(px, py);
            if (!(ab.covers(at_c) && bc.covers(at_a) && ca.covers(at_b))) continue;
            const double total = at_a + at_b + at_c;
            const float z = float(total / (at_a * inverse_a + at_b * inverse_b + at_c * inverse_c));
            const int64_t pixel = int64_t(y) * image.width + x;
            if (z < image.depth[pixel]) {
                image.depth[pixel] = z;
                image.face_indices[pixel] = face;
            }
        }
    }
}

void draw_band(const float* vertices, const int32_t* faces, int64_t n_faces, int row_begin, int row_end, Image image) {
    const int64_t begin = int64_t(row_begin) * image.width, end = int64_t(row_end) * image.width;
    std::fill(image.depth + begin, image.depth + end, std::numeric_limits<float>::infinity());
    std::fill(image.face_indices + begin, image.face_indices + end, -1);
    const auto vertex = [vertices](int32_t index) {
        const float* v = vertices + 3 * int64_t(index);
        return Vertex{v[0], v[1], v[2]};
    };
    for (int64_t face = 0; face < n_faces; ++face) {
        const int32_t* corner = faces + 3 * face;
        const Vertex a = vertex(corner[0]), b = vertex(corner[1]), c = vertex(corner[2]);
        if (!(is_drawable(a) && is_drawable(b) && is_drawable(c))) continue;
        const double area = (double(b.x) - a.x) * (double(c.y) - a.y) - (double(b.y) - a.y) * (double(c.x) - a.x);
        if (area > 0.0) draw(a, b, c, int32_t(face), row_begin, row_end, image);
        if (area < 0.0) draw(a, c, b, int32_t(face), row_begin, row_end, image);
    }
}

}  // namespace

void rasterize(const float* vertices, const int32_t* faces, int64_t n_faces, int width, int height, float* depth,
               int32_t* face_indices) {
    const Image image{width, height, depth, face_indices};
    const size_t n_bands = std::max(1, std::min(num_threads(), height));
    parallel_for(n_bands, [&](size_t band) {
        const int row_begin = int(height * band / n_bands), row_end = int(height * (band + 1) / n_bands);
        draw_band(vertices, faces, n_faces, row_begin, row_end, image);
    });
}

}  // namespace quicksurf
