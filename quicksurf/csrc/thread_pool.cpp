#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace quicksurf {
namespace {

thread_local bool inside_task = false;

// Subnormal numbers count as zero while tasks run, and the caller's mode is restored. Samples behind an opaque surface
// have gradients of any smallness; the processor takes a hundred cycles for each subnormal product, and a training
// step's backward pass was ten times slower for a twentieth of such entries.
class FlushSubnormals {
   public:
    FlushSubnormals() : before_(mode()) { set_mode(before_ | BITS); }
    ~FlushSubnormals() { set_mode(before_); }
    FlushSubnormals(const FlushSubnormals&) = delete;

   private:
#if defined(__x86_64__)
    using Mode = unsigned int;
    static constexpr Mode BITS = 0x8040;  // flush to zero, denormals are zero
    static Mode mode() { return _mm_getcsr(); }
    static void set_mode(Mode m) { _mm_setcsr(m); }
#elif defined(__aarch64__)
    using Mode = uint64_t;
    static constexpr Mode BITS = 1u << 24;  // FPCR.FZ
    static Mode mode() {
        Mode m;
        asm volatile("mrs %0, fpcr" : "=r"(m));
        return m;
    }
    static void set_mode(Mode m) { asm volatile("msr fpcr, %0" ::"r"(m)); }
#else
    using Mode = int;
    static constexpr Mode BITS = 0;
    static Mode mode() { return 0; }
    static void set_mode(Mode) {}
#endif
    const Mode before_;
};

struct Job {
    const std::function<void(size_t)>* fn;
    size_t n_tasks;
    std::atomic<size_t> next{0};
    std::exception_ptr error;  // guarded by Pool::mutex_
};

class Pool {
   public:
    void run(size_t n_tasks, const std::function<void(size_t)>& fn) {
        std::lock_guard<std::mutex> one_caller(caller_);
        resize();
        Job job{&fn, n_tasks};
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
            busy_ = workers_.size();
            ++generation_;
        }
        wake_.notify_all();
        work(job);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [&] { return busy_ == 0; });
        job_ = nullptr;
        if (job.error) std::rethrow_exception(job.error);
    }

    int size() const { return wanted_; }
    void want(int n) { wanted_ = n; }

   private:
    void work(Job& job) {
        const FlushSubnormals flush;
        inside_task = true;
        try {
            for (size_t i = job.next++; i < job.n_tasks; i = job.next++) (*job.fn)(i);
        } catch (...) {
            job.next = job.n_tasks;
            std::lock_guard<std::mutex> lock(mutex_);
            if (!job.error) job.error = std::current_exception();
        }
        inside_task = false;
    }

    void resize() {
        const size_t n = static_cast<size_t>(wanted_ - 1);
        if (workers_.size() == n) return;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            ++generation_;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
        workers_.clear();
        stop_ = false;
        for (size_t i = 0; i < n; ++i) workers_.emplace_back([this, seen = generation_] { loop(seen); });
    }

    void loop(size_t seen) {
        for (;;) {
            Job* job;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return generation_ != seen; });
                seen = generation_;
                if (stop_) return;
                job = job_;
            }
            work(*job);
            std::lock_guard<std::mutex> lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::mutex caller_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    Job* job_ = nullptr;
    size_t busy_ = 0, generation_ = 0;
    bool stop_ = false;
    std::atomic<int> wanted_{usable_cpus()};
};

Pool* instance = nullptr;

// Never destroyed: workers may outlive static destruction at interpreter exit. After fork() only the calling thread
// exists and the parent's locks are in any state: the child abandons the pool and starts its own.
Pool& pool() {
    static const bool once = [] {
        instance = new Pool;
        pthread_atfork(nullptr, nullptr, [] {
            const int n = instance->size();
            instance = new Pool;
            instance->want(n);
            inside_task = false;
        });
        return true;
    }();
    (void)once;
    return *instance;
}

// cgroup v2 "quota period" or v1's two files; 0 when there is no limit.
double cgroup_cpus() {
    double quota = 0, period = 0;
    std::string first;
    if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> first >> period && first != "max")
        return std::atof(first.c_str()) / period;
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (q >> quota && p >> period && quota > 0 && period > 0) return quota / period;
    return 0;
}

}  // namespace

int usable_cpus() {
    int n = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    if (const double quota = cgroup_cpus(); quota > 0) n = std::min(n, static_cast<int>(std::ceil(quota)));
#endif
    return std::max(1, n);
}

int num_threads() { return pool().size(); }
void set_num_threads(int n) { pool().want(std::max(1, n)); }

void parallel_for(size_t n_tasks, const std::function<void(size_t)>& fn) {
    if (n_tasks == 0) return;
    if (n_tasks == 1 || inside_task || num_threads() == 1) {
        const FlushSubnormals flush;
        for (size_t i = 0; i < n_tasks; ++i) fn(i);
        return;
    }
    pool().run(n_tasks, fn);
}

}  // namespace quicksurf
