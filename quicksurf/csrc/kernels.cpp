// Compiled once per instruction set with QS_ISA naming it; defines quicksurf::QS_ISA::table.
#include "kernels.h"

#include "backward.h"
#include "network.h"
#include "opacity.h"
#include "patch_match.h"
#include "search.h"

namespace quicksurf {
namespace QS_ISA {
namespace {

template <class T>
void forward(const NetworkSpec& spec, const T* params, int n_active_levels, Strided<const T> x, size_t n, T* output,
             T* saved) {
    FusedNetwork<T>(spec, params, n_active_levels).forward(x, n, output, saved);
}

template <class T>
void backward(const NetworkSpec& spec, const T* params, int n_active_levels, Strided<const T> x, size_t n,
              const T* saved, const T* grad_output, T* grad_params, T* grad_x, T* grad_saved) {
    FusedBackward<T>(spec, params, n_active_levels).backward(x, n, saved, grad_output, grad_params, grad_x, grad_saved);
}

constexpr size_t ADAM_BLOCK = 1 << 14;

void adam_block(const AdamStep& s, size_t n, float* param, const float* grad, float* first, float* second) {
    for (size_t i = 0; i < n; ++i) {
        const float g = grad[i];
        const bool keep = s.skip_zero && g == 0;
        const float m = s.beta1 * first[i] + (1 - s.beta1) * g;
        const float v = s.beta2 * second[i] + (1 - s.beta2) * g * g;
        const float step = s.learning_rate * m * s.correction1 / (std::sqrt(v * s.correction2) + s.epsilon);
        param[i] = keep ? param[i] : param[i] - step;
        first[i] = keep ? first[i] : m;
        second[i] = keep ? second[i] : v;
    }
}

void adam(const AdamStep& s, size_t n, float* param, const float* grad, float* first, float* second) {
    parallel_for((n + ADAM_BLOCK - 1) / ADAM_BLOCK, [&](size_t block) {
        const size_t begin = block * ADAM_BLOCK, count = n - begin < ADAM_BLOCK ? n - begin : ADAM_BLOCK;
        adam_block(s, count, param + begin, grad + begin, first + begin, second + begin);
    });
}

}  // namespace

extern const Kernels table;
const Kernels table = {{forward<float>, backward<float>},
                       {forward<double>, backward<double>},
                       {logit_weights_forward<float>, logit_weights_backward<float>},
                       {logit_weights_forward<double>, logit_weights_backward<double>},
                       sample_surface,
                       adam,
                       stereo::patch_match};

}  // namespace QS_ISA
}  // namespace quicksurf
