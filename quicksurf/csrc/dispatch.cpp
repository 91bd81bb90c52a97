#include <atomic>
#include <cstdlib>
#include <stdexcept>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"
#include "nearest.h"

namespace quicksurf {
#if defined(__x86_64__)
namespace v2 {
extern const Kernels table;
extern const NearestKernel nearest;
}  // namespace v2
namespace v3 {
extern const Kernels table;
extern const NearestKernel nearest;
}  // namespace v3
namespace avxvnni {
extern const NearestKernel nearest;
}
namespace v4 {
extern const Kernels table;
extern const NearestKernel nearest;
}  // namespace v4
namespace vnni {
extern const NearestKernel nearest;
}
namespace amx {
extern const NearestKernel nearest;
}
#else
namespace generic {
extern const Kernels table;
extern const NearestKernel nearest;
}  // namespace generic
#endif

namespace {

struct Choice {
    std::string name;
    const Kernels* table;
    const NearestKernel* nearest;
};

#if defined(__x86_64__)

// By number, because compilers differ in the names that they know: Intel's manual, volume 2, CPUID, leaf 7.
struct ByteProducts {
    bool avxvnni = false, vnni = false, amx = false;

    ByteProducts() {
        unsigned n_subleaves = 0, a = 0, b = 0, c = 0, d = 0;
        if (!__get_cpuid_count(7, 0, &n_subleaves, &b, &c, &d)) return;
        vnni = c >> 11 & 1;
        amx = (d >> 24 & 1) && (d >> 25 & 1) && tiles_allowed();
        avxvnni = n_subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
    }

    // The tile registers are 8 KB a thread to save, so a process has to ask the kernel for them.
    static bool tiles_allowed() {
#ifdef SYS_arch_prctl
        constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
        return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
        return false;
#endif
    }
};

// Slowest first.
std::vector<Choice> detect() {
    __builtin_cpu_init();
    const ByteProducts bytes;
    std::vector<Choice> choices{{"v2", &v2::table, &v2::nearest}};
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
        return choices;
    choices.push_back({"v3", &v3::table, &v3::nearest});
    if (bytes.avxvnni) choices.push_back({"avxvnni", &v3::table, &avxvnni::nearest});
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512cd"))
        return choices;
    choices.push_back({"v4", &v4::table, &v4::nearest});
    if (bytes.vnni) choices.push_back({"vnni", &v4::table, &vnni::nearest});
    if (bytes.vnni && bytes.amx) choices.push_back({"amx", &v4::table, &amx::nearest});
    return choices;
}

#else

std::vector<Choice> detect() { return {{"generic", &generic::table, &generic::nearest}}; }

#endif

const std::vector<Choice>& runnable() {
    static const std::vector<Choice> choices = detect();
    return choices;
}

const Choice* find(const std::string& name) {
    for (const Choice& choice : runnable())
        if (choice.name == name) return &choice;
    std::string known;
    for (const Choice& choice : runnable()) known += (known.empty() ? "" : ", ") + choice.name;
    throw std::invalid_argument("instruction set '" + name + "' cannot run here: choose one of " + known);
}

const Choice* initial() {
    const char* wanted = std::getenv("QUICKSURF_ISA");
    return wanted && *wanted ? find(wanted) : &runnable().back();
}

// Atomic: kernels read it without Python's lock.
std::atomic<const Choice*>& chosen() {
    static std::atomic<const Choice*> choice{initial()};
    return choice;
}

}  // namespace

const Kernels& kernels() { return *chosen().load()->table; }
const NearestKernel& nearest_kernel() { return *chosen().load()->nearest; }
std::string instruction_set() { return chosen().load()->name; }
void set_instruction_set(const std::string& name) { chosen() = find(name); }

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Choice& choice : runnable()) names.push_back(choice.name);
    return names;
}

}  // namespace quicksurf
