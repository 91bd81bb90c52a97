"""Each format is read back: geometry, winding, colours and normals where it holds them."""

import json

import numpy as np
import pytest
import trimesh

from quicksurf.errors import ConfigError, OutputError, SurfaceError
from quicksurf.mesh.export import FORMATS, read_mesh, read_points, write_mesh
from quicksurf.mesh.types import Mesh

SINGLE = 1e-6  # relative: coordinates pass through float32 or 8 decimal digits


@pytest.fixture
def torus():
    solid = trimesh.creation.torus(0.6, 0.2, major_sections=24, minor_sections=12)
    colors = np.random.default_rng(0).integers(0, 256, (len(solid.vertices), 3)).astype(np.uint8)
    return Mesh(
        np.array(solid.vertices), np.array(solid.faces, np.int64), colors, np.array(solid.vertex_normals)
    )


def corners(vertices, faces):
    """The corners of each face, sorted: the same for any numbering of the vertices."""
    triangles = np.round(vertices[faces], 5)
    return np.array(sorted(triangles.reshape(-1, 9).tolist()))


@pytest.mark.parametrize("suffix", FORMATS)
def test_geometry_and_winding_come_back(torus, tmp_path, suffix):
    (path,) = write_mesh(torus, tmp_path, "mesh", [suffix])
    assert path == tmp_path / f"mesh.{suffix}" and [p.name for p in tmp_path.iterdir()] == [path.name]
    back = read_mesh(path)
    if suffix != "stl":  # STL repeats the corners of each face
        assert len(back.vertices) == len(torus.vertices)
    np.testing.assert_allclose(
        corners(back.vertices, back.faces), corners(torus.vertices, torus.faces), atol=2e-5
    )
    solid = trimesh.Trimesh(back.vertices, back.faces)
    assert solid.is_watertight and solid.volume == pytest.approx(
        trimesh.Trimesh(torus.vertices, torus.faces).volume, rel=1e-4
    )


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_colors_come_back(torus, tmp_path, suffix):
    (path,) = write_mesh(torus, tmp_path, "mesh", [suffix])
    back = read_mesh(path)
    np.testing.assert_allclose(back.vertices, torus.vertices, atol=SINGLE)
    np.testing.assert_array_equal(back.colors, torus.colors)


def test_glb_holds_linear_colors_of_an_unlit_material(torus, tmp_path):
    (path,) = write_mesh(torus, tmp_path, "mesh", ["glb"])
    blob = path.read_bytes()
    length = int.from_bytes(blob[12:16], "little")
    tree, binary = json.loads(blob[20 : 20 + length]), blob[28 + length :]
    primitive = tree["meshes"][0]["primitives"][0]
    accessor = tree["accessors"][primitive["attributes"]["COLOR_0"]]
    assert accessor["componentType"] == 5123 and accessor["normalized"] and accessor["type"] == "VEC4"
    begin = tree["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
    stored = np.frombuffer(binary, "<u2", 4 * accessor["count"], begin).reshape(-1, 4)[:, :3] / 65535
    srgb = torus.colors / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    np.testing.assert_allclose(stored, linear, atol=1e-5)
    material = tree["materials"][primitive["material"]]
    assert "KHR_materials_unlit" in material["extensions"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_normals_come_back_outward(torus, tmp_path, suffix):
    (path,) = write_mesh(torus, tmp_path, "mesh", [suffix])
    np.testing.assert_allclose(read_mesh(path).normals, torus.normals, atol=1e-5)


def test_ply_is_binary_and_holds_normals(torus, tmp_path):
    write_mesh(torus, tmp_path, "mesh", ["ply"])
    header = (tmp_path / "mesh.ply").read_bytes().split(b"end_header")[0]
    assert (
        b"binary_little_endian" in header
        and b"property float nx" in header
        and b"property uchar red" in header
    )


def test_several_formats_at_once_and_each_once(torus, tmp_path):
    paths = write_mesh(torus, tmp_path / "new" / "folder", "name", ["stl", "ply", "stl"])
    assert [p.name for p in paths] == ["name.stl", "name.ply"] and all(p.stat().st_size > 0 for p in paths)


def test_an_unknown_format_is_refused_before_anything_is_written(torus, tmp_path):
    with pytest.raises(ConfigError, match=r"fbx.*ply, obj, glb, stl"):
        write_mesh(torus, tmp_path, "mesh", ["ply", "fbx"])
    assert not list(tmp_path.iterdir())


def test_an_empty_mesh_is_refused(tmp_path):
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), np.zeros((0, 3), np.uint8), np.zeros((0, 3)))
    with pytest.raises(SurfaceError, match="no faces"):
        write_mesh(empty, tmp_path, "mesh", ["ply"])


def test_a_folder_that_is_a_file_is_an_output_error(torus, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError):
        write_mesh(torus, tmp_path / "taken", "mesh", ["ply"])


@pytest.mark.parametrize(
    "content", [b"", b"ply\nformat binary_little_endian 1.0\nelement vertex 10\n", b"\x00" * 64]
)
def test_a_broken_file_is_a_surface_error(tmp_path, content):
    (tmp_path / "broken.ply").write_bytes(content)
    with pytest.raises(SurfaceError, match=r"broken\.ply"):
        read_mesh(tmp_path / "broken.ply")


def test_a_cloud_is_not_a_mesh(tmp_path):
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "cloud.ply")
    with pytest.raises(SurfaceError, match=r"cloud\.ply"):
        read_mesh(tmp_path / "cloud.ply")


def test_points_are_read_from_a_cloud_and_a_mesh(torus, tmp_path):
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "cloud.ply")
    points, faces = read_points(tmp_path / "cloud.ply")
    np.testing.assert_allclose(np.sort(points, 0), np.sort(np.eye(3), 0))
    assert faces.shape == (0, 3)
    for path in write_mesh(torus, tmp_path, "mesh", FORMATS):
        points, faces = read_points(path)
        mesh = read_mesh(path)
        np.testing.assert_array_equal(points, mesh.vertices)
        np.testing.assert_array_equal(faces, mesh.faces)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vertices_that_are_not_finite_are_refused(torus, tmp_path, value):
    vertices = torus.vertices.copy()
    vertices[3, 1] = value
    (path,) = write_mesh(torus._replace(vertices=vertices), tmp_path, "mesh", ["ply"])
    for read in (read_mesh, read_points):
        with pytest.raises(SurfaceError, match="holds NaN or infinity"):
            read(path)


def test_a_file_without_points_is_refused(tmp_path):
    (tmp_path / "none.obj").write_text("# nothing\n")
    for read in (read_mesh, read_points):
        with pytest.raises(SurfaceError, match=r"none\.obj"):
            read(tmp_path / "none.obj")


def test_to_world_maps_the_unit_ball_to_the_roi(torus):
    world = torus.to_world((1.0, 2.0, 3.0), 4.0)
    np.testing.assert_allclose(world.vertices, 4 * torus.vertices + [1, 2, 3])
    assert world.normals is torus.normals


SURVEYS = [
    (500_000.0, 4_600_000.0, 300.0),  # UTM, metres
    (-2_694_045.3, -4_297_217.9, 3_854_501.2),  # Earth-centred
    (5e8, 4.6e9, 3e5),  # UTM, millimetres
    (0.0, 0.0, 1e6),
]


@pytest.mark.parametrize("offset", SURVEYS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_survey_coordinates_keep_the_surface(torus, tmp_path, suffix, offset):
    """Single precision would leave four values of y."""
    far = torus._replace(vertices=torus.vertices + offset)
    (path,) = write_mesh(far, tmp_path, "mesh", [suffix])
    back = read_mesh(path)
    tolerance = 1e-5 + 2e-15 * max(map(abs, offset))
    near = corners(back.vertices - offset, back.faces)
    assert np.abs(near - corners(torus.vertices, torus.faces)).max() < 10 * tolerance + 1e-4
    solid = trimesh.Trimesh(back.vertices - offset, back.faces)
    assert solid.is_watertight or suffix == "stl"
    assert solid.area == pytest.approx(trimesh.Trimesh(torus.vertices, torus.faces).area, rel=1e-4)
    if suffix != "stl":
        np.testing.assert_allclose(back.normals, torus.normals, atol=1e-4)
        np.testing.assert_array_equal(back.colors, torus.colors)


def header_and_tree(torus, tmp_path, offset):
    far = torus._replace(vertices=torus.vertices + offset)
    ply, glb = write_mesh(far, tmp_path, "mesh", ["ply", "glb"])
    blob = glb.read_bytes()
    tree = json.loads(blob[20 : 20 + int.from_bytes(blob[12:16], "little")])
    return (
        ply.read_bytes().split(b"end_header")[0],
        next(node for node in tree["nodes"] if "mesh" in node),
        tree,
    )


def test_far_ply_holds_doubles_and_far_glb_a_node_s_translation(torus, tmp_path):
    header, node, tree = header_and_tree(torus, tmp_path, SURVEYS[0])
    assert b"property double x" in header and b"property float nx" in header
    assert node["translation"] == [500_000.0, 4_600_000.0, 300.0] and "matrix" not in node
    position = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert np.abs([*position["min"], *position["max"]]).max() < 10


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (30.0, -50.0, 7.0)])
def test_near_files_stay_plain(torus, tmp_path, offset):
    header, node, _ = header_and_tree(torus, tmp_path, offset)
    assert b"property float x" in header
    assert "translation" not in node


def test_confidence_is_in_the_ply(torus, tmp_path):
    confidence = np.linspace(0, 0.9, len(torus.vertices)).astype(np.float32)
    (path,) = write_mesh(torus._replace(confidence=confidence), tmp_path, "mesh", ["ply"])
    loaded = trimesh.load(path, process=False)
    found = loaded.metadata["_ply_raw"]["vertex"]["data"]["confidence"]
    np.testing.assert_array_equal(np.asarray(found).ravel(), confidence)


def test_a_face_index_that_no_vertex_has_is_refused(torus, tmp_path):
    for index in (999_999_999, -5):
        faces = torus.faces.copy()
        faces[7, 1] = index
        (path,) = write_mesh(torus._replace(faces=faces), tmp_path, "mesh", ["ply"])
        for read in (read_mesh, read_points):
            with pytest.raises(SurfaceError, match=rf"{path}.*(faces of vertices .*{index}|out of bounds)"):
                read(path)
