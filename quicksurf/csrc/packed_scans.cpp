#include "packed_scans.h"

#include "ray_tasks.h"

namespace quicksurf {

namespace {

struct Add {
    static constexpr double identity = 0;
    double operator()(double a, double b) const { return a + b; }
};

struct Multiply {
    static constexpr double identity = 1;
    double operator()(double a, double b) const { return a * b; }
};

// Scans n values, `stride` (1 or -1) apart. Four at a time: only one operation in four waits for the one before it.
// Returns the total.
template <bool inclusive, class Op, class T>
double scan(Op op, int64_t n, int64_t stride, const T* inputs, T* outputs) {
    double before = Op::identity;
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const T* x = inputs + i * stride;
        T* y = outputs + i * stride;
        const double a = x[0], b = op(a, x[stride]), c = op(b, x[2 * stride]), d = op(c, x[3 * stride]);
        const double ya = op(before, a), yb = op(before, b), yc = op(before, c), yd = op(before, d);
        y[0] = static_cast<T>(inclusive ? ya : before);
        y[stride] = static_cast<T>(inclusive ? yb : ya);
        y[2 * stride] = static_cast<T>(inclusive ? yc : yb);
        y[3 * stride] = static_cast<T>(inclusive ? yd : yc);
        before = yd;
    }
    for (; i < n; ++i) {
        const double after = op(before, inputs[i * stride]);
        outputs[i * stride] = static_cast<T>(inclusive ? after : before);
        before = after;
    }
    return before;
}

template <class Op, class T>
double scan(Op op, bool inclusive, int64_t n, int64_t stride, const T* inputs, T* outputs) {
    return inclusive ? scan<true>(op, n, stride, inputs, outputs) : scan<false>(op, n, stride, inputs, outputs);
}

// With B_i = R_{i+1} or x_{i+1} S_{i+1} of the header: B_{i-1} = c_i + x_i B_i from the back, c_i = g_i or x_i g_i.
// Four at a time, so that only one step in four waits for the one before it.
template <bool inclusive, class T>
void prod_backward(int64_t n, const T* x, const T* y, const T* g, T* grad) {
    double behind = 0;
    const auto put = [&](int64_t i, double b) {
        const double before = inclusive ? (i > 0 ? y[i - 1] : T(1)) : y[i];
        grad[i] = static_cast<T>(before * (inclusive ? g[i] + b : b));
    };
    const auto gain = [&](int64_t i) { return inclusive ? double(x[i]) * g[i] : double(g[i]); };
    int64_t i = n;
    for (; i >= 4; i -= 4) {
        const double x1 = x[i - 1], x2 = x[i - 2], x3 = x[i - 3], x4 = x[i - 4];
        const double c1 = gain(i - 1), c2 = gain(i - 2) + x2 * c1, c3 = gain(i - 3) + x3 * c2,
                     c4 = gain(i - 4) + x4 * c3;
        const double p2 = x1 * x2, p3 = p2 * x3, p4 = p3 * x4;
        put(i - 1, behind);
        put(i - 2, c1 + x1 * behind);
        put(i - 3, c2 + p2 * behind);
        put(i - 4, c3 + p3 * behind);
        behind = c4 + p4 * behind;
    }
    for (; i > 0; --i) {
        put(i - 1, behind);
        behind = gain(i - 1) + x[i - 1] * behind;
    }
}

}  // namespace

template <class T>
void sum_scan(const Chunks& chunks, bool inclusive, bool normalize, bool from_back, const T* inputs, T* outputs) {
    for_rays(chunks.n, SCANNED_RAYS_PER_TASK, [&](size_t c) {
        const int64_t n = chunks.counts[c], begin = chunks.starts[c], first = from_back ? begin + n - 1 : begin;
        if (n == 0) return;
        const double total = scan(Add{}, inclusive, n, from_back ? -1 : 1, inputs + first, outputs + first);
        if (!normalize) return;
        const double divisor = total > 1e-10 ? total : 1e-10;
        for (int64_t i = begin; i < begin + n; ++i) outputs[i] = static_cast<T>(outputs[i] / divisor);
    });
}

template <class T>
void prod_scan(const Chunks& chunks, bool inclusive, const T* inputs, T* outputs) {
    for_rays(chunks.n, SCANNED_RAYS_PER_TASK, [&](size_t c) {
        scan(Multiply{}, inclusive, chunks.counts[c], 1, inputs + chunks.starts[c], outputs + chunks.starts[c]);
    });
}

template <class T>
void prod_scan_backward(const Chunks& chunks, bool inclusive, const T* inputs, const T* outputs, const T* grad_outputs,
                        T* grad_inputs) {
    for_rays(chunks.n, SCANNED_RAYS_PER_TASK, [&](size_t c) {
        const int64_t n = chunks.counts[c], begin = chunks.starts[c];
        const auto backward = inclusive ? prod_backward<true, T> : prod_backward<false, T>;
        backward(n, inputs + begin, outputs + begin, grad_outputs + begin, grad_inputs + begin);
    });
}

#define QS_INSTANTIATE(T)                                                     \
    template void sum_scan<T>(const Chunks&, bool, bool, bool, const T*, T*); \
    template void prod_scan<T>(const Chunks&, bool, const T*, T*);            \
    template void prod_scan_backward<T>(const Chunks&, bool, const T*, const T*, const T*, T*);
QS_INSTANTIATE(float)
QS_INSTANTIATE(double)
#undef QS_INSTANTIATE

}  // namespace quicksurf
