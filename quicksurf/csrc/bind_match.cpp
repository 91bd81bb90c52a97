#include "bindings.h"
#include "match.h"

namespace quicksurf {

namespace {

using DescriptorRows = Array<const uint8_t, nb::shape<-1, 128>, nb::c_contig, nb::device::cpu>;
using Pairs = Array<const int32_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Matches = nb::ndarray<nb::numpy, int32_t, nb::shape<-1, 2>, nb::c_contig>;

std::vector<std::pair<size_t, size_t>> checked_pairs(const Pairs& pairs, size_t n_images) {
    std::vector<std::pair<size_t, size_t>> checked(pairs.shape(0));
    for (size_t p = 0; p < checked.size(); ++p) {
        const int32_t first = pairs.data()[2 * p], second = pairs.data()[2 * p + 1];
        expect(first >= 0 && second >= 0 && size_t(first) < n_images && size_t(second) < n_images,
               "pairs[" + std::to_string(p) + "] is (" + std::to_string(first) + ", " + std::to_string(second) +
                   "), expected indices of the " + std::to_string(n_images) + " arrays of descriptors");
        checked[p] = {size_t(first), size_t(second)};
    }
    return checked;
}

Matches new_matches(std::vector<int32_t>&& values) {
    auto* kept = new std::vector<int32_t>(std::move(values));
    return Matches(kept->data(), {kept->size() / 2, 2},
                   nb::capsule(kept, [](void* p) noexcept { delete static_cast<std::vector<int32_t>*>(p); }));
}

std::vector<Matches> match(const std::vector<DescriptorRows>& descriptors, const Pairs& pairs, double max_ratio,
                           double max_distance) {
    expect(max_ratio > 0 && max_ratio <= 1, "max_ratio must be above 0 and at most 1");
    expect(max_distance > 0, "max_distance, in radians, must be above 0");
    std::vector<DescriptorArray> arrays;
    for (const DescriptorRows& rows : descriptors) {
        expect(rows.shape(0) < 1u << 30, "descriptors: an array has 2^30 rows or more");
        arrays.push_back({rows.data(), rows.shape(0)});
    }
    const std::vector<std::pair<size_t, size_t>> checked = checked_pairs(pairs, arrays.size());
    std::vector<std::vector<int32_t>> found;
    {
        nb::gil_scoped_release release;
        found = match_descriptors(arrays, checked, {max_ratio, max_distance});
    }
    std::vector<Matches> matches;
    for (std::vector<int32_t>& values : found) matches.push_back(new_matches(std::move(values)));
    return matches;
}

}  // namespace

void bind_match(nb::module_& m) {
    m.def("match_descriptors", &match, "descriptors"_a.noconvert(), "pairs"_a.noconvert(), "max_ratio"_a,
          "max_distance"_a, "Matches (i, j) of each pair of arrays of descriptors, as int32 arrays [k, 2].");
}

}  // namespace quicksurf
