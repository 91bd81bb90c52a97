// The Python module quicksurf.kernels._native; each subject binds itself in its own file.
#include "bindings.h"
#include "kernels.h"
#include "thread_pool.h"

using namespace quicksurf;

NB_MODULE(_native, m) {
    m.doc() = "Native CPU kernels of quicksurf.";
    nb::set_leak_warnings(false);  // descriptions of networks are cached until the interpreter ends
    m.def("usable_cpus", &usable_cpus);
    m.def("num_threads", &num_threads);
    m.def(
        "set_num_threads",
        [](int n) {
            expect(n >= 1 && n <= 1024, "n, the number of threads, must be 1 to 1024");
            set_num_threads(n);
        },
        "n"_a);
    m.def("instruction_set", &instruction_set);
    m.def("instruction_sets", &instruction_sets);
    m.def("set_instruction_set", &set_instruction_set, "name"_a);

    bind_networks(m);
    bind_rays(m);
    bind_unisurf(m);
    bind_rasterize(m);
    bind_match(m);
    bind_stereo(m);
    bind_nerfacc(m);
}
