#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels.h"

namespace quicksurf {
#if defined(__x86_64__)
namespace v2 {
extern const Kernels table;
}
namespace v3 {
extern const Kernels table;
}
namespace v4 {
extern const Kernels table;
}
#else
namespace generic {
extern const Kernels table;
}
#endif

namespace {

struct Choice {
    std::string name;
    const Kernels* table;
};

// Narrowest first.
std::vector<Choice> detect() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    std::vector<Choice> choices{{"v2", &v2::table}};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
        choices.push_back({"v3", &v3::table});
    if (choices.size() == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"))
        choices.push_back({"v4", &v4::table});
    return choices;
#else
    return {{"generic", &generic::table}};
#endif
}

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
std::string instruction_set() { return chosen().load()->name; }
void set_instruction_set(const std::string& name) { chosen() = find(name); }

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Choice& choice : runnable()) names.push_back(choice.name);
    return names;
}

}  // namespace quicksurf
