"""IDR's npz: projections decompose into the cameras they were made of, in the units of the world."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from quicksurf.capture.idr import decompose, read_idr
from quicksurf.errors import CaptureError, ImageError

POSE64 = 1e-9


def projections(capture) -> dict[str, np.ndarray]:
    """world_mat_i = K [R | t] with pixel 0 at the first pixel's centre, each with another factor and sign."""
    matrices = {}
    for index, (c2w, lens) in enumerate(
        zip(capture.cameras.c2w.numpy(), capture.cameras.intrinsics, strict=True)
    ):
        fx, fy, cx, cy = lens.tolist()
        calibration = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
        rotation = c2w[:, :3].T
        matrix = np.eye(4)
        matrix[:3] = calibration @ np.concatenate([rotation, -rotation @ c2w[:, 3:]], axis=1)
        matrix[:3] *= (-1) ** index * (1 + index)
        matrices[f"world_mat_{index}"] = matrix
    return matrices


def with_scales(matrices: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    scale = np.diag([0.7, 0.7, 0.7, 1.0])
    scale[:3, 3] = [0.2, -0.1, 0.3]
    n_images = len(matrices)
    return matrices | {f"scale_mat_{index}": scale for index in range(n_images)}


@pytest.fixture
def saved(tmp_path, capture) -> Path:
    capture.save_images(tmp_path / "image", "{:06d}.png")
    capture.save_masks(tmp_path / "mask", "{:03d}.png")
    np.savez(tmp_path / "cameras_sphere.npz", **with_scales(projections(capture)))
    return tmp_path / "cameras_sphere.npz"


def test_round_trip(saved, capture, options):
    scene = read_idr(saved, options)
    assert (scene.cameras.c2w - capture.cameras.c2w).abs().max() < POSE64
    assert (scene.cameras.intrinsics - capture.cameras.intrinsics).abs().max() < 1e-6  # a quotient by K[2, 2]
    assert scene.names[3] == "image/000003.png"
    assert scene.roi.center == pytest.approx((0.2, -0.1, 0.3))
    assert scene.roi.radius == pytest.approx(0.7)
    for found, mask in zip(scene.masks, capture.masks, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_without_scale_the_region_is_found(saved, capture, options):
    np.savez(saved, **projections(capture))
    roi = read_idr(saved, options).roi
    offset = np.linalg.norm(np.array(roi.center) - capture.center)
    assert offset + capture.radius < roi.radius < 1.6 * capture.radius


@pytest.mark.parametrize("seed", range(5))
def test_decompose_inverts_composition(seed):
    generator = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    center = generator.normal(size=3) * 100
    calibration = np.array([[900.0, 0.5, 400.0], [0, 880.0, 300.0], [0, 0, 1]])
    projection = calibration @ np.concatenate([rotation.T, -rotation.T @ center[:, None]], 1)
    found, c2w = decompose(projection * generator.choice([-3.0, 0.2]))
    np.testing.assert_allclose(found, calibration, atol=1e-8)
    np.testing.assert_allclose(c2w, np.concatenate([rotation, center[:, None]], 1), atol=1e-8)


def test_image_without_camera_is_lost(saved, capture, options):
    matrices = projections(capture)
    del matrices["world_mat_4"]
    np.savez(saved, **matrices)
    scene = read_idr(saved, options)
    assert scene.report.lost == {"000004.png": "cameras_sphere.npz has no world_mat_4"}
    assert (scene.cameras.c2w[4] - capture.cameras.c2w[5]).abs().max() < POSE64
    np.testing.assert_array_equal(scene.masks[4], capture.masks[5])


def test_damaged_image_is_lost(saved, capture, options):
    (saved.parent / "image/000002.png").write_bytes(b"")
    scene = read_idr(saved, options)
    assert list(scene.report.lost) == ["000002.png"]
    assert torch.equal(scene.cameras.sizes, capture.cameras.sizes[1:])


def pickled(path: Path, matrices: dict[str, np.ndarray]) -> None:
    np.savez(path, **(matrices | {"world_mat_0": np.array([{"a": 1}], dtype=object)}))


def replaced(key: str, value: np.ndarray):
    return lambda path, matrices: np.savez(path, **(matrices | {key: value}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda path, _: np.savez(path, poses=np.eye(4), focal=np.ones(1)),
            r"lacks `world_mat_0`.*focal, poses",
        ),
        (lambda path, _: np.savez(path), r"lacks `world_mat_0`"),
        (lambda path, _: path.write_bytes(b""), "cannot be read"),
        (lambda path, _: path.write_text("not a zip"), "cannot be read"),
        (lambda path, _: path.write_bytes(path.read_bytes()[:3000]), "cannot be read"),
        (pickled, "cannot be read.*plain 4 x 4"),
        (
            replaced("world_mat_2", np.full((4, 4), np.nan)),
            "world_mat_2: an entry must be a finite number, found nan",
        ),
        (replaced("world_mat_2", np.zeros((4, 4))), "world_mat_2 is singular"),
        (replaced("world_mat_2", np.eye(3)), r"world_mat_2 must be 4 x 4 numbers, found \[3, 3\]"),
        (replaced("world_mat_2", np.array([["a"] * 4] * 4)), "4 x 4 numbers"),
        (replaced("world_mat_2", np.zeros((300, 300))), "too large"),
        (replaced("world_mat_2", np.full((4, 4), 1e300)), "world_mat_2: an entry must be a finite number"),
        (
            replaced("world_mat_2", np.eye(4)),
            "world_mat_2 is a pose without a lens.*`camera_mat_2` is missing",
        ),
    ],
)
def test_broken_npz_is_explained(saved, capture, options, damage, says):
    damage(saved, projections(capture))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CaptureError, match=says) as caught:
            read_idr(saved, options)
    assert "cameras_sphere.npz" in str(caught.value)


def test_never_unpickled(saved, options, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(saved, world_mat_0=np.array([Trap()], dtype=object))
    with pytest.raises(CaptureError):
        read_idr(saved, options)
    assert not (tmp_path / "sprung").exists()


def test_folder_without_images_is_refused(saved, options):
    (saved.parent / "image").rename(saved.parent / "pictures")
    with pytest.raises(ImageError, match="no folder image or images"):
        read_idr(saved, options)


def unisurf(capture) -> dict[str, np.ndarray]:
    """world_mat = [R | t] and camera_mat = N K, N to [-1, 1], with the inverses that such files hold."""
    normalise = np.array([[2 / 48, 0, -1], [0, 2 / 40, -1], [0, 0, 1]])
    matrices = {}
    for index, (c2w, lens) in enumerate(
        zip(capture.cameras.c2w.numpy(), capture.cameras.intrinsics, strict=True)
    ):
        fx, fy, cx, cy = lens.tolist()
        world, camera = np.eye(4), np.eye(4)
        world[:3] = np.concatenate([c2w[:, :3].T, -c2w[:, :3].T @ c2w[:, 3:]], axis=1)
        camera[:3, :3] = normalise @ np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
        for name, value in (("world_mat", world), ("camera_mat", camera)):
            matrices |= {f"{name}_{index}": value, f"{name}_inv_{index}": np.linalg.inv(value)}
    return matrices


@pytest.mark.parametrize("shape", [(4, 4), (3, 3)])
def test_poses_and_lenses_of_unisurf_are_put_together(saved, capture, options, shape):
    matrices = unisurf(capture)
    cut = {
        key: value[: shape[0], : shape[1]] for key, value in matrices.items() if key.startswith("camera_mat_")
    }
    np.savez(saved, **(matrices | cut))
    cameras = read_idr(saved, options).cameras
    assert (cameras.c2w - capture.cameras.c2w).abs().max() < POSE64
    assert (cameras.intrinsics - capture.cameras.intrinsics).abs().max() < 1e-6  # a quotient by K[2, 2]


def test_a_camera_mat_beside_a_projection_is_left_alone(saved, capture, options):
    """As in DTU's files, where it is N."""
    normalise = np.diag([2 / 48, 2 / 40, 1.0, 1.0])
    np.savez(saved, **projections(capture), **{f"camera_mat_{index}": normalise for index in range(10)})
    assert (read_idr(saved, options).cameras.c2w - capture.cameras.c2w).abs().max() < POSE64


def renamed(saved: Path, capture, name: str, numbers: list[int]) -> list[Path]:
    """The first images under other names, without masks."""
    for folder in ("image", "mask"):
        for path in (saved.parent / folder).iterdir():
            path.unlink()
    (saved.parent / "mask").rmdir()
    paths = [saved.parent / "image" / name.format(number) for number in numbers]
    for path, image in zip(paths, capture.images, strict=False):
        Image.fromarray(image).save(path)
    return paths


@pytest.mark.parametrize("name", ["{:04d}.png", "{}.png", "frame_{:03d}.png"])
@pytest.mark.parametrize("removed", [[0, 5, 9], [1], [8, 9]])
def test_images_keep_their_cameras_when_others_are_removed(saved, capture, options, name, removed):
    paths = renamed(saved, capture, name, list(range(10)))
    for index in removed:
        paths[index].unlink()
    scene = read_idr(saved, options)
    kept = [index for index in range(10) if index not in removed]
    assert (scene.cameras.c2w - capture.cameras.c2w[kept]).abs().max() < POSE64
    assert f"has 10 cameras for {len(kept)} images: they are paired by number" in scene.report.notes[0]


@pytest.mark.parametrize("first", [1, 100])
def test_as_many_images_as_cameras_are_paired_in_order(saved, capture, options, first):
    renamed(saved, capture, "{}.png", list(range(first, first + 10)))
    assert (read_idr(saved, options).cameras.c2w - capture.cameras.c2w).abs().max() < POSE64


def test_cameras_that_were_removed_with_their_images_leave_the_numbers(saved, capture, options):
    kept = [0, 1, 3, 4, 7, 8]
    paths = renamed(saved, capture, "{:03d}.png", list(range(10)))
    for index in set(range(10)) - set(kept):
        paths[index].unlink()
    matrices = projections(capture)
    np.savez(saved, **{f"world_mat_{index}": matrices[f"world_mat_{index}"] for index in kept})
    assert (read_idr(saved, options).cameras.c2w - capture.cameras.c2w[kept]).abs().max() < POSE64


@pytest.mark.parametrize(
    ("name", "numbers", "says"),
    [
        ("{}.png", [1, 2, 4, 5, 6, 8, 10], "they are numbered 1 to 10, the cameras 0 to 9"),
        ("{0}{0}a.png", [0, 1, 2, 3, 4], "their names are no numbers"),
        ("{0}_{0}.png", [0, 1, 2, 3, 4], "their names are no numbers"),
    ],
)
def test_images_that_nothing_pairs_with_cameras_are_refused(saved, capture, options, name, numbers, says):
    renamed(saved, capture, name, numbers)
    with pytest.raises(
        CaptureError, match=rf"10 cameras for {len(numbers)} images, and {says}.*nothing tells"
    ):
        read_idr(saved, options)
