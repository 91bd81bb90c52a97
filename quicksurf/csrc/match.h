// Matches between the SIFT descriptors of pairs of images: exhaustive and exact.
//
// Descriptors are 128 unsigned bytes, as COLMAP stores them. The angle between two is arccos(a b / |a| |b|), with the
// integer product a b. Descriptors i and j match if
//
//     each is the nearest of the other,
//     their angle is at most max_distance (radians),
//     and, from either side, it is less than max_ratio times the angle to the second nearest (Lowe 2004, section 7.1).
//
// Where there is no second one it counts as orthogonal. Descriptors of zeros and orthogonal ones match nothing. With
// max_ratio <= 1 two that are equally near match nothing, so there are no ties to decide. Rounding: see nearest.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace quicksurf {

struct DescriptorArray {
    const uint8_t* values;  // [n][128]
    size_t n;
};

struct MatchLimits {
    double max_ratio, max_distance;
};

// For each pair (image, image) the matches (i, j) one after another, by rising i.
//
// Tasks are ranges of rows of one pair, so that a single pair keeps all threads busy as well as many do. Each image is
// packed once a call.
std::vector<std::vector<int32_t>> match_descriptors(const std::vector<DescriptorArray>& images,
                                                    const std::vector<std::pair<size_t, size_t>>& pairs,
                                                    const MatchLimits& limits);

}  // namespace quicksurf
