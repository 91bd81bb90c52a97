// The kernels that exist once per instruction set, and the choice between them at run time.
#pragma once

#include <string>
#include <vector>

#include "network_spec.h"
#include "rays.h"
#include "stereo.h"

namespace quicksurf {

template <class T>
struct NetworkKernels {
    // See network.h for shapes. n_active_levels: grid levels beyond it are zero and get no gradient.
    void (*forward)(const NetworkSpec&, const T* params, int n_active_levels, Strided<const T> x, size_t n, T* output,
                    T* saved);
    void (*backward)(const NetworkSpec&, const T* params, int n_active_levels, Strided<const T> x, size_t n,
                     const T* saved, const T* grad_output, T* grad_params, T* grad_x, T* grad_saved);
};

struct AdamStep {
    float learning_rate, beta1, beta2, epsilon;
    float correction1, correction2;  // 1 / (1 - beta^t)
    bool skip_zero;                  // entries whose gradient is exactly zero keep value and moments
};

// UNISURF's samples around a surface; see interval.h.
struct IntervalSpec {
    float half_width, reach;
    int n_interval, n_front;
    float level;  // the logit at which a search ends
    int n_samples() const { return n_interval + n_front; }  // of a ray, at most
};

// A surface to search for, l(x) = radius - |x| - scale * net([x, (x + 1) / 2])_0, inside > 0, and to sample around.
struct SurfaceSearch {
    Grids grids;
    RayBatch rays;
    float step_size, radius, scale;
    float max_slope;  // of the logit: |l| / max_slope is clear of the surface
    int n_secant;
    IntervalSpec interval;
    const float* jitter;  // [n_rays][n_samples] in [0, 1)
};

// What a search finds; the samples of ray r begin at r * n_samples of its interval.
struct SampleSlots {
    uint8_t* hits;     // [n_rays]
    float* t_surface;  // [n_rays], 0 without a hit
    int64_t* counts;   // [n_rays]
    float *t, *deltas;
};

struct OpacitySpec {
    double sharpness;
    bool transmittance;  // how opacity follows from occupancy: see opacity.h
    double absorption, shift;
};

template <class T>
struct OpacityKernels {
    // See opacity.h for shapes.
    void (*forward)(const OpacitySpec&, size_t n_rays, const int64_t* offsets, const T* logits, const T* deltas,
                    T* depths, T* alphas, T* weights, T* opacities);
    void (*backward)(const OpacitySpec&, size_t n_rays, const int64_t* offsets, const T* deltas, const T* depths,
                     const T* alphas, const T* grad_weights, const T* grad_opacities, T* grad_logits);
};

struct Kernels {
    NetworkKernels<float> network32;
    NetworkKernels<double> network64;
    OpacityKernels<float> opacity32;
    OpacityKernels<double> opacity64;
    // Where the logit last rose above 0 before it first exceeded the level, on each ray within occupied cells, and
    // samples around it: see search.h. Returns the evaluations it took.
    int64_t (*sample_surface)(const NetworkSpec&, const float* params, int n_active_levels, const SurfaceSearch&,
                              const SampleSlots&);
    // Kingma and Ba 2015, algorithm 1; all arrays [n], param and moments updated in place.
    void (*adam)(const AdamStep&, size_t n, float* param, const float* grad, float* first, float* second);
    void (*patch_match)(const StereoMap&, const StereoSpec&, const std::vector<StereoSource>&);  // see stereo.h
};

// The best set this processor runs, or the one QUICKSURF_ISA names: "generic", or on x86-64 the levels "v2", "v3", "v4"
// and, for products of bytes (nearest.h), "avxvnni" on top of v3, "vnni" and "amx" on top of v4.
const Kernels& kernels();
std::string instruction_set();
std::vector<std::string> instruction_sets();    // those this processor can run
void set_instruction_set(const std::string& name);  // throws std::invalid_argument

}  // namespace quicksurf
