#include <algorithm>

#include "bindings.h"
#include "kernels.h"

namespace quicksurf {

namespace {

using Grey = Array<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Transforms = Array<const float, nb::shape<-1, 3, 4>, nb::c_contig, nb::device::cpu>;
using Planes = Array<float, nb::shape<3, -1, -1>, nb::c_contig, nb::device::cpu>;

void expect_frame(const Grey& grey, const char* name) {
    expect(grey.shape(0) >= 1 && grey.shape(1) >= 1 && grey.shape(0) <= 32768 && grey.shape(1) <= 32768 &&
               grey.shape(0) * grey.shape(1) <= 1u << 28,
           std::string(name) + ": a side must be 1 to 32768 and the product at most 2^28 pixels");
}

std::vector<StereoSource> checked_sources(const std::vector<Grey>& sources, const Transforms& transforms) {
    expect(sources.size() >= 1 && sources.size() <= size_t(STEREO_MOST_SOURCES), "sources: 1 to 8 are expected");
    expect_size(transforms.shape(0), sources.size(), "transforms");
    std::vector<StereoSource> checked(sources.size());
    for (size_t k = 0; k < sources.size(); ++k) {
        expect_frame(sources[k], "sources");
        checked[k].grey = sources[k].data();
        checked[k].height = int(sources[k].shape(0));
        checked[k].width = int(sources[k].shape(1));
        std::copy_n(transforms.data() + 12 * k, 12, &checked[k].transform[0][0]);
    }
    return checked;
}

void match_patches(const Grey& reference, const std::vector<Grey>& sources, const Transforms& transforms,
                   const Planes& planes, const Matrix<float>& costs, std::pair<float, float> range, float reach,
                   float tilt, float shrink, float focal, float similarity, float least_contrast, int n_best,
                   int n_sweeps, uint32_t seed) {
    expect_frame(reference, "reference");
    const size_t height = reference.shape(0), width = reference.shape(1);
    expect(planes.shape(1) == height && planes.shape(2) == width,
           "planes: [3, height, width] of the reference is expected");
    expect_shape(costs, height, width, "costs");
    expect(range.first > 0 && range.first < range.second, "range: inverse depths 0 < low < high are expected");
    expect(focal > 0 && similarity > 0 && least_contrast > 0, "focal, similarity and least_contrast must be above 0");
    expect(n_best >= 1 && size_t(n_best) <= sources.size(), "n_best must be 1 to the number of sources");
    expect(n_sweeps >= 0 && n_sweeps <= 1000, "n_sweeps must be 0 to 1000");
    const std::vector<StereoSource> checked = checked_sources(sources, transforms);
    const StereoSpec spec{range.first, range.second,   reach,  tilt,     shrink, focal,
                          similarity,  least_contrast, n_best, n_sweeps, seed};
    nb::gil_scoped_release release;
    kernels().patch_match({int(height), int(width), reference.data(), planes.data(), costs.data()}, spec, checked);
}

using Transform = Array<const float, nb::shape<3, 4>, nb::c_contig, nb::device::cpu>;
using KnownPlanes = Array<const float, nb::shape<3, -1, -1>, nb::c_contig, nb::device::cpu>;
using Costs = Matrix<const float>;

DepthMap checked_map(const KnownPlanes& planes, const Costs& costs) {
    expect(planes.shape(1) <= 32768 && planes.shape(2) <= 32768, "planes: sides of at most 32768 are expected");
    expect_shape(costs, planes.shape(1), planes.shape(2), "costs");
    return {int(planes.shape(1)), int(planes.shape(2)), planes.data(), costs.data()};
}

void verify(const KnownPlanes& planes, const Costs& costs, const std::vector<KnownPlanes>& other_planes,
            const std::vector<Costs>& other_costs, const Transforms& there, const Transforms& back,
            const Vector<const float>& intrinsics, const Matrix<float>& inverse_depths, const Matrix<float>& spreads,
            float most_cost, float most_other_cost, float most_pixels, float most_relative, float least_cosine,
            int n_agreeing) {
    const DepthMap map = checked_map(planes, costs);
    expect_shape(inverse_depths, costs.shape(0), costs.shape(1), "inverse_depths");
    expect_shape(spreads, costs.shape(0), costs.shape(1), "spreads");
    expect_size(other_costs.size(), other_planes.size(), "other_costs");
    expect_size(there.shape(0), other_planes.size(), "there");
    expect_size(back.shape(0), other_planes.size(), "back");
    expect_size(intrinsics.size(), 4, "intrinsics");
    expect(intrinsics.data()[0] > 0 && intrinsics.data()[1] > 0, "intrinsics: focal lengths must be above 0");
    expect(n_agreeing >= 1, "n_agreeing must be at least 1");
    std::vector<DepthCheck> checks(other_planes.size());
    for (size_t k = 0; k < checks.size(); ++k) {
        checks[k].map = checked_map(other_planes[k], other_costs[k]);
        std::copy_n(there.data() + 12 * k, 12, &checks[k].there[0][0]);
        std::copy_n(back.data() + 12 * k, 12, &checks[k].back[0][0]);
    }
    AgreementSpec spec{{}, most_cost, most_other_cost, most_pixels, most_relative, least_cosine, n_agreeing};
    std::copy_n(intrinsics.data(), 4, spec.intrinsics);
    nb::gil_scoped_release release;
    verify_depths(map, checks, spec, inverse_depths.data(), spreads.data());
}

}  // namespace

void bind_stereo(nb::module_& m) {
    m.def("match_patches", &match_patches, "reference"_a.noconvert(), "sources"_a.noconvert(),
          "transforms"_a.noconvert(), "planes"_a.noconvert(), "costs"_a.noconvert(), nb::kw_only(), "range"_a,
          "reach"_a, "tilt"_a, "shrink"_a, "focal"_a, "similarity"_a, "least_contrast"_a, "n_best"_a, "n_sweeps"_a,
          "seed"_a,
          "Improve planes (inverse depth, its derivatives by pixel) of a photo in place; write the costs of each.");
    m.def("verify_depths", &verify, "planes"_a.noconvert(), "costs"_a.noconvert(), "other_planes"_a.noconvert(),
          "other_costs"_a.noconvert(), "there"_a.noconvert(), "back"_a.noconvert(), "intrinsics"_a.noconvert(),
          "inverse_depths"_a.noconvert(), "spreads"_a.noconvert(), nb::kw_only(), "most_cost"_a, "most_other_cost"_a,
          "most_pixels"_a, "most_relative"_a, "least_cosine"_a, "n_agreeing"_a,
          "Inverse depths that other photos confirm, 0 elsewhere; how far each may be off, as a part of it, for a "
          "pixel.");
}

}  // namespace quicksurf
