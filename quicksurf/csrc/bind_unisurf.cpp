// Bindings of what UNISURF does along rays: surface search with sampling, and weights from logits.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "bindings.h"
#include "kernels.h"
#include "thread_pool.h"

namespace quicksurf {
namespace {

constexpr size_t PACK_RAYS_PER_TASK = 1024;
constexpr float MAX_STEPS_ACROSS = 65536;

using PackedInfo = Array<int64_t, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;

// Packs the slots' samples one ray behind the other, the first at begins[r].
void pack_samples(const SampleSlots& slots, size_t n_rays, size_t slot_size, const int64_t* begins, float* t,
                  float* deltas, int64_t* ray_indices) {
    parallel_for((n_rays + PACK_RAYS_PER_TASK - 1) / PACK_RAYS_PER_TASK, [&](size_t task) {
        const size_t end = std::min(n_rays, (task + 1) * PACK_RAYS_PER_TASK);
        for (size_t r = task * PACK_RAYS_PER_TASK; r < end; ++r) {
            const int64_t to = begins[r], n = slots.counts[r];
            std::copy_n(slots.t + r * slot_size, n, t + to);
            std::copy_n(slots.deltas + r * slot_size, n, deltas + to);
            std::fill_n(ray_indices + to, n, int64_t(r));
        }
    });
}

// Returns the number of samples and of evaluations; t, deltas and ray_indices have room for n_samples on every ray.
std::pair<int64_t, int64_t> sample_surface(const NetworkSpec& spec, Vector<const float> params, int n_active_levels,
                                           Points origins, Points directions, Binaries binaries,
                                           Matrix<const float> aabbs, Vector<const float> near, Vector<const float> far,
                                           float step_size, float radius, float scale, float max_slope, int n_secant,
                                           float half_width, float reach, int n_interval, int n_front, float level,
                                           Matrix<const float> jitter, Vector<bool> hits, Vector<float> t_surface,
                                           PackedInfo packed_info, Vector<float> t, Vector<float> deltas,
                                           Vector<int64_t> ray_indices) {
    expect(half_width > 0 && reach >= 0 && level >= 0 && n_interval >= 1 && n_interval <= 4096 && n_front >= 0 &&
               n_front <= 4096,
           "half_width must be positive, reach and level not negative, n_interval 1 to 4096, n_front 0 to 4096");
    const SurfaceSearch search{make_grids(binaries, aabbs),
                               make_rays(origins, directions, near, far),
                               step_size,
                               radius,
                               scale,
                               max_slope,
                               n_secant,
                               {half_width, reach, n_interval, n_front, level},
                               jitter.data()};
    const size_t n = search.rays.n, slot_size = search.interval.n_samples();
    expect_size(params.size(), spec.n_params, "params");
    expect(spec.n_input == 6 && spec.has_network(), "network: the search needs one on 6 inputs, x and (x + 1) / 2");
    const float* box = aabbs.data() + 6 * (aabbs.shape(0) - 1);
    for (int d = 0; d < 3; ++d)
        expect(step_size > 0 && step_size * MAX_STEPS_ACROSS >= box[d + 3] - box[d] && std::isfinite(step_size),
               "step_size must be positive, and at least a 65536th of the largest box");
    expect(max_slope > 0, "max_slope must be positive");
    expect(n_secant >= 1 && n_secant <= 64, "n_secant must be 1 to 64");
    expect_shape(jitter, n, slot_size, "jitter");
    expect_size(hits.size(), n, "hits");
    expect_size(t_surface.size(), n, "t_surface");
    expect_shape(packed_info, n, 2, "packed_info");
    expect_size(t.size(), n * slot_size, "t");
    expect_size(deltas.size(), n * slot_size, "deltas");
    expect_size(ray_indices.size(), n * slot_size, "ray_indices");
    nb::gil_scoped_release release;
    const std::unique_ptr<float[]> slot_t(new float[n * slot_size]), slot_deltas(new float[n * slot_size]);
    std::vector<int64_t> counts(n), begins(n);
    const SampleSlots slots{reinterpret_cast<uint8_t*>(hits.data()), t_surface.data(), counts.data(), slot_t.get(),
                            slot_deltas.get()};
    const int64_t n_evaluations = kernels().sample_surface(spec, params.data(), n_active_levels, search, slots);
    int64_t n_samples = 0;
    for (size_t r = 0; r < n; n_samples += counts[r++]) begins[r] = n_samples;
    pack_samples(slots, n, slot_size, begins.data(), t.data(), deltas.data(), ray_indices.data());
    for (size_t r = 0; r < n; ++r) {
        packed_info.data()[2 * r] = begins[r];
        packed_info.data()[2 * r + 1] = counts[r];
    }
    return {n_samples, n_evaluations};
}

template <class T>
const OpacityKernels<T>& opacity_kernels() {
    if constexpr (std::is_same_v<T, float>)
        return kernels().opacity32;
    else
        return kernels().opacity64;
}

OpacitySpec make_opacity(double sharpness, bool transmittance, double absorption, double shift) {
    expect(sharpness > 0 && std::isfinite(sharpness), "sharpness must be positive");
    expect(absorption >= 0 && std::isfinite(absorption) && std::isfinite(shift),
           "absorption must not be negative, shift finite");
    return {sharpness, transmittance, absorption, shift};
}

template <class T>
void logit_weights_forward(Vector<const int64_t> offsets, Vector<const T> logits, Vector<const T> deltas,
                           double sharpness, bool transmittance, double absorption, double shift, Vector<T> depths,
                           Vector<T> alphas, Vector<T> weights, Vector<T> opacities) {
    const std::vector<int64_t> bounds = checked_offsets(offsets, logits.size(), "logits");
    const size_t n = bounds.size() - 1;
    expect_size(deltas.size(), logits.size(), "deltas");
    expect_size(depths.size(), logits.size(), "depths");
    expect_size(alphas.size(), logits.size(), "alphas");
    expect_size(weights.size(), logits.size(), "weights");
    expect_size(opacities.size(), n, "opacities");
    const OpacitySpec spec = make_opacity(sharpness, transmittance, absorption, shift);
    nb::gil_scoped_release release;
    opacity_kernels<T>().forward(spec, n, bounds.data(), logits.data(), deltas.data(), depths.data(), alphas.data(),
                                 weights.data(), opacities.data());
}

template <class T>
void logit_weights_backward(Vector<const int64_t> offsets, Vector<const T> deltas, Vector<const T> depths,
                            Vector<const T> alphas, double sharpness, bool transmittance, double absorption,
                            double shift, Vector<const T> grad_weights, Vector<const T> grad_opacities,
                            Vector<T> grad_logits) {
    const std::vector<int64_t> bounds = checked_offsets(offsets, depths.size(), "depths");
    const size_t n = bounds.size() - 1;
    expect_size(deltas.size(), depths.size(), "deltas");
    expect_size(alphas.size(), depths.size(), "alphas");
    expect_size(grad_weights.size(), depths.size(), "grad_weights");
    expect_size(grad_opacities.size(), n, "grad_opacities");
    expect_size(grad_logits.size(), depths.size(), "grad_logits");
    const OpacitySpec spec = make_opacity(sharpness, transmittance, absorption, shift);
    nb::gil_scoped_release release;
    opacity_kernels<T>().backward(spec, n, bounds.data(), deltas.data(), depths.data(), alphas.data(),
                                  grad_weights.data(), grad_opacities.data(), grad_logits.data());
}

template <class T>
void bind_logit_weights(nb::module_& m) {
    m.def("logit_weights_forward", &logit_weights_forward<T>, "offsets"_a.noconvert(), "logits"_a.noconvert(),
          "deltas"_a.noconvert(), "sharpness"_a, "transmittance"_a, "absorption"_a, "shift"_a, "depths"_a.noconvert(),
          "alphas"_a.noconvert(), "weights"_a.noconvert(), "opacities"_a.noconvert());
    m.def("logit_weights_backward", &logit_weights_backward<T>, "offsets"_a.noconvert(), "deltas"_a.noconvert(),
          "depths"_a.noconvert(), "alphas"_a.noconvert(), "sharpness"_a, "transmittance"_a, "absorption"_a, "shift"_a,
          "grad_weights"_a.noconvert(), "grad_opacities"_a.noconvert(), "grad_logits"_a.noconvert());
}

}  // namespace

void bind_unisurf(nb::module_& m) {
    m.def("sample_surface", &sample_surface, "network"_a, "params"_a.noconvert(), "n_active_levels"_a,
          "origins"_a.noconvert(), "directions"_a.noconvert(), "binaries"_a.noconvert(), "aabbs"_a.noconvert(),
          "near_planes"_a.noconvert(), "far_planes"_a.noconvert(), "step_size"_a, "radius"_a, "scale"_a, "max_slope"_a,
          "n_secant"_a, "half_width"_a, "reach"_a, "n_interval"_a, "n_front"_a, "level"_a, "jitter"_a.noconvert(),
          "hits"_a.noconvert(), "t_surface"_a.noconvert(), "packed_info"_a.noconvert(), "t"_a.noconvert(),
          "deltas"_a.noconvert(), "ray_indices"_a.noconvert());
    bind_logit_weights<float>(m);
    bind_logit_weights<double>(m);
}

}  // namespace quicksurf
