#include "bindings.h"
#include "rasterize.h"

namespace quicksurf {

namespace {

using Faces = Array<const int32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;

template <class T>
using Image = nb::ndarray<nb::numpy, T, nb::ndim<2>, nb::c_contig>;

template <class T>
Image<T> new_image(int width, int height) {
    T* data = new T[size_t(width) * height];
    return Image<T>(data, {size_t(height), size_t(width)},
                    nb::capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); }));
}

std::pair<Image<float>, Image<int32_t>> rasterize_mesh(Points vertices, Faces faces, int width, int height) {
    expect(width >= 1 && height >= 1 && width <= 32768 && height <= 32768, "width and height must be 1 to 32768");
    expect(int64_t(width) * height <= 1 << 28, "width * height must be at most 2^28 pixels");
    const int64_t n_vertices = int64_t(vertices.shape(0)), n_faces = int64_t(faces.shape(0));
    bool in_range = true;
    for (int64_t i = 0; i < 3 * n_faces; ++i) in_range &= faces.data()[i] >= 0 && faces.data()[i] < n_vertices;
    expect(in_range, "faces hold an index that is no vertex");
    auto depth = new_image<float>(width, height);
    auto face_indices = new_image<int32_t>(width, height);
    {
        nb::gil_scoped_release release;
        rasterize(vertices.data(), faces.data(), n_faces, width, height, depth.data(), face_indices.data());
    }
    return {depth, face_indices};
}

}  // namespace

void bind_rasterize(nb::module_& m) {
    m.def("rasterize", &rasterize_mesh, "vertices"_a.noconvert(), "faces"_a.noconvert(), "width"_a, "height"_a,
          "Depth (+inf where nothing is) and face index (-1) of each pixel.");
}

}  // namespace quicksurf
