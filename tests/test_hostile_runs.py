"""Runs that somebody else made: whatever their files hold is said in a line, and nothing is written beside them."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import trimesh
from cut_fit import cut_to
from tiny_capture import write_capture

from quicksurf.app.cli import main
from quicksurf.app.export.frame import SIDECAR
from quicksurf.app.export.surface import PRODUCTS
from quicksurf.app.fit import run_fit
from quicksurf.app.report.charts import curves
from quicksurf.app.requests import FitRequest
from quicksurf.app.run.files import sweep_files
from quicksurf.app.run.folder import Run, claim_run, open_run
from quicksurf.app.run.metrics_log import append_metrics, read_metrics_log
from quicksurf.errors import OutputError, QuicksurfError, SurfaceError
from quicksurf.mesh.export import read_mesh

TINY = str(Path(__file__).with_name("tiny.toml"))
HUGE = 10**400
DIGITS = "1" + "0" * 400
DEEP = "[" * 100_000 + "]" * 100_000
BUG = 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    capture = write_capture(folder / "capture")
    run_fit(FitRequest(capture, 20.0, folder / "run", preset=TINY), fit=cut_to(1.5))
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def set_to(file: str, **entries: Any) -> Callable[[Path], None]:
    return lambda run: edit(run / file, lambda value: value.update(entries))


def written(file: str, text: str) -> Callable[[Path], None]:
    return lambda run: (run / file).write_text(text) and None


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / "checkpoint" / "state.safetensors"
        tensors = safetensors.torch.load(path.read_bytes())
        tensors[name] = change(tensors[name].clone()).contiguous()
        path.write_bytes(safetensors.torch.save(tensors))

    return damage


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


STATE = "checkpoint/state.json"
CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "roi of 401 digits": set_to(STATE, roi=[0, 0, 0, HUGE]),
    "roi radius NaN": set_to(STATE, roi=[0, 0, 0, float("nan")]),
    "roi radius 0": set_to(STATE, roi=[0, 0, 0, 0]),
    "roi radius -1": set_to(STATE, roi=[0, 0, 0, -1]),
    "roi radius 1e308": set_to(STATE, roi=[0, 0, 0, 1e308]),
    "roi centre 1e200": set_to(STATE, roi=[1e200, 0, 0, 1]),
    "roi of three": set_to(STATE, roi=[0, 0, 1]),
    "roi a word": set_to(STATE, roi="here"),
    "seconds of 401 digits": set_to(STATE, seconds_fitted=HUGE),
    "seconds infinite": set_to(STATE, seconds_fitted=float("inf")),
    "seconds negative": set_to(STATE, seconds_fitted=-1.0),
    "step of 401 digits": set_to(STATE, step=HUGE),
    "step a list": set_to(STATE, step=[]),
    "progress 2": set_to(STATE, progress=2.0),
    "progress NaN": set_to(STATE, progress=float("nan")),
    "psnr a word": set_to(STATE, psnr_held_out="good"),
    "config a list": set_to(STATE, config=[]),
    "config a number": set_to(STATE, config=5),
    "config of numbers": set_to(STATE, config={"model": 5}),
    "config with a list": set_to(STATE, config={"model": [1]}),
    "held out numbers": set_to(STATE, held_out=[2] * 12),
    "held out HUGE": set_to(STATE, held_out=[HUGE] * 12),
    "held out all": set_to(STATE, held_out=[True] * 12),
    "held out nested": set_to(STATE, held_out=[[True]] * 12),
    "names a number": set_to(STATE, names=5),
    "names of numbers": set_to(STATE, names=[1] * 12),
    "names too few": set_to(STATE, names=["a.png"]),
    "names of another run": set_to(STATE, names=[f"{k}.png" for k in range(12)]),
    "nested deep": written(STATE, DEEP),
    "nested deep in an object": written(STATE, '{"config": ' + '{"a":' * 900 + "1" + "}" * 900 + "}"),
    "format of another version": set_to(STATE, format=1),
    "no JSON": written(STATE, "{"),
    "5000 digits": written(STATE, '{"roi": [' + "1" * 5000 + "]}"),
    "poses 4 x 4": tensor("cameras.c2w", lambda t: torch.eye(4, dtype=t.dtype).repeat(12, 1, 1)),
    "poses NaN": tensor("cameras.c2w", filled(float("nan"))),
    "poses flat": tensor("cameras.c2w", filled(0.0)),
    "poses far": tensor("cameras.c2w", lambda t: t + torch.tensor([0, 0, 0, 1e30], dtype=t.dtype)),
    "poses scalar": tensor("cameras.c2w", lambda t: torch.zeros(())),
    "lens 0": tensor("cameras.intrinsics", filled(0.0)),
    "lens infinite": tensor("cameras.intrinsics", filled(float("inf"))),
    "lens 1e308": tensor("cameras.intrinsics", filled(1e308)),
    "distortion NaN": tensor("cameras.distortion", filled(float("nan"))),
    "sizes 0": tensor("cameras.sizes", filled(0)),
    "sizes huge": tensor("cameras.sizes", filled(1 << 40)),
    "sizes float": tensor("cameras.sizes", lambda t: t.double()),
    "sizes of others": tensor("cameras.sizes", lambda t: t + 7),
    "fisheye float": tensor("cameras.fisheye", lambda t: t.double()),
    "field NaN": tensor("model.geometry.network.params", filled(float("nan"))),
    "field empty": tensor("model.geometry.network.params", lambda t: t[:0]),
    "grid small": tensor("grid.occs", lambda t: t[:8]),
    "grid NaN": tensor("grid.occs", filled(float("nan"))),
    "appearance NaN": tensor("model.appearance.offsets", filled(float("nan"))),
    "model larger than its file": lambda run: edit(
        run / STATE,
        lambda s: s["config"]["model"].update(log2_hashmap_size=24, n_levels=32, n_features_per_level=8),
    ),
    "no tensors": lambda run: (run / "checkpoint/state.safetensors").write_bytes(b"") and None,
    "header of 2^60": lambda run: (
        (run / "checkpoint/state.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}") and None
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_damaged_checkpoint_is_refused_by_what_is_wrong(run: Path, what: str, capsys: Any) -> None:
    CHECKPOINTS[what](run)
    before = tree(run)
    if what != "sizes of others":  # which show only beside the photos
        with pytest.raises(OutputError):
            open_run(run).model("cpu")
    code = main(["eval", str(run), "--views", "1"])
    message = capsys.readouterr().err
    assert code not in (0, BUG) and message.count("\n") == 1 and len(message) < 1500, message
    assert tree(run) == before


def test_an_optimiser_of_another_model_is_no_bug(run: Path, capsys: Any) -> None:
    (run / "summary.json").unlink()
    path = run / "checkpoint" / "state.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    del tensors["optimizer.first.geometry"]
    path.write_bytes(safetensors.torch.save(tensors))
    assert main(["fit", str(run), "--resume", "--quiet"]) == OutputError.exit_code
    assert "optimiser" in capsys.readouterr().err


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


OUTSIDE = ["../../out/a.png", "{out}/a.png", "x/../../../out/a.png", "..", "", "\0", "a/../..", "/", "x/.."]


@pytest.mark.parametrize("name", OUTSIDE)
def test_renders_stay_in_their_folder_whatever_photos_are_called(
    run: Path, tmp_path: Path, name: str, capsys: Any
) -> None:
    name = name.format(out=tmp_path / "out")

    def rename(value: dict[str, Any]) -> None:
        value["names"][0] = name

    edit(run / STATE, rename)
    edit(run / "run.json", rename)
    code = main(
        ["render", str(run), "--path", "input", "--size", "16", "--output", str(tmp_path / "a" / "b")]
    )
    assert code == OutputError.exit_code, capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "a").exists()


@pytest.mark.parametrize("link", ["render", "render/color"])
def test_renders_follow_no_link_out_of_the_run(run: Path, tmp_path: Path, link: str, capsys: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (run / link).parent.mkdir(exist_ok=True)
    (run / link).symlink_to(elsewhere)
    assert main(["render", str(run), "--frames", "1", "--size", "16"]) == OutputError.exit_code
    assert "link" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.new", "checkpoint.old", "poses", "export"])
def test_a_run_whose_folders_are_links_is_refused(run: Path, tmp_path: Path, name: str, capsys: Any) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "letter.txt").write_text("dear")
    if (run / name).exists():
        shutil.rmtree(run / name)
    (run / name).symlink_to(elsewhere)
    assert main(["fit", str(run), "--minutes", "1", "--quiet"]) == OutputError.exit_code
    assert [path.name for path in elsewhere.iterdir()] == ["letter.txt"]


def test_metrics_and_lock_follow_no_link(run: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("dear")
    opened = open_run(run)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(letter)
    with pytest.raises(OSError):
        append_metrics(opened.path, {"seconds": 1.0})
    (run / ".lock").unlink(missing_ok=True)
    (run / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(OutputError), opened.locked():
        pass
    assert letter.read_text() == "dear" and not (tmp_path / "new").exists()


RECORDS: dict[str, Callable[[Path], None]] = {
    "posed_images 5": set_to("run.json", posed_images=5),
    "source long": set_to("run.json", source="x" * 5000),
    "source long parts": set_to("run.json", source="/" + "x" * 300),
    "source with NUL": set_to("run.json", source="a\0b"),
    "source empty": set_to("run.json", source=""),
    "photos a list": set_to("run.json", photos=[1]),
    "photos HUGE": set_to("run.json", photos=-1),
    "minutes a word": set_to("run.json", minutes="ten"),
    "masks a word": set_to("run.json", masks="yes"),
    "names a number": set_to("run.json", names=5),
    "held out a number": set_to("run.json", held_out=[5]),
    "roi HUGE": set_to("run.json", roi=[0, 0, 0, HUGE]),
    "roi negative": set_to("run.json", roi=[0, 0, 0, -1.0]),
    "version a list": set_to("run.json", version=["x" * 5000]),
    "nested": written("run.json", DEEP),
    "nested object": written("run.json", '{"a":' * 500 + "1" + "}" * 500),
    "digits": written("run.json", '{"format": ' + "1" * 5000 + "}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", RECORDS)
@pytest.mark.parametrize("command", ["report", "mesh", "fit"])
def test_a_damaged_record_is_refused_in_one_line(run: Path, what: str, command: str, capsys: Any) -> None:
    RECORDS[what](run)
    more = ["--minutes", "1", "--quiet"] if command == "fit" else []
    code = main([command, str(run), *more])
    message = capsys.readouterr().err
    assert code not in (0, BUG) or (what.startswith("roi") and command != "fit" and code == 0), message
    assert len(message) < 1500


def lines(*texts: str) -> Callable[[Path], None]:
    return written("metrics.jsonl", "\n".join(texts) + "\n")


FIGURES: dict[str, Callable[[Path], None]] = {
    "summary nested": written("summary.json", '{"a": ' + DEEP + "}"),
    "metrics nested": lines(DEEP, '{"seconds": 1.0, "psnr": 20.0}'),
    "warnings 5": set_to("summary.json", warnings=5),
    "warnings an object": set_to("summary.json", warnings={"a": HUGE}),
    "warnings long": set_to("summary.json", warnings=["x" * 100_000] * 100),
    "psnr HUGE": set_to("summary.json", psnr_held_out=HUGE),
    "psnr NaN": set_to("summary.json", psnr_held_out=float("nan")),
    "total NaN": set_to("summary.json", seconds={"total": float("nan")}),
    "total infinite": set_to("summary.json", seconds={"total": float("inf")}),
    "total negative": set_to("summary.json", seconds={"total": -5}),
    "memory HUGE": set_to("summary.json", peak_memory_mb=HUGE),
    "read HUGE": set_to("summary.json", seconds={"read": HUGE}),
    "stages of opposite signs": set_to("summary.json", seconds={"read": -1e14, "fit": 1e14}),
    "seconds a list": set_to("summary.json", seconds=[1]),
    "photos an object": set_to("summary.json", photos={"a": 1}),
    "lost a list": set_to("summary.json", lost=[1, 2]),
    "lost of lists": set_to("summary.json", lost={"a": [HUGE], "b": None}),
    "backend an object": set_to("summary.json", backend={"a": ["x"] * 10_000}),
    "metrics seconds of 400 digits": lines('{"seconds": ' + DIGITS + ', "psnr": 3}'),
    "metrics psnr 1e308": lines(
        '{"seconds": 1, "psnr": 1e308}', '{"seconds": 2, "psnr": -1e308}', '{"seconds": 3, "psnr": 20}'
    ),
    "metrics psnr 1e14": lines('{"seconds": 1, "psnr": 1e14}', '{"seconds": 2, "psnr": -1e14}'),
    "metrics psnr close": lines('{"seconds": 1, "psnr": 1e14}', '{"seconds": 2, "psnr": 100000000000000.02}'),
    "metrics seconds 1e308": lines('{"seconds": 1e308, "psnr": 20}', '{"seconds": 2, "psnr": 20}'),
    "metrics seconds negative": lines('{"seconds": -5, "psnr": 20}', '{"seconds": -6, "psnr": 21}'),
    "metrics psnr an object": lines('{"seconds": 1, "psnr": {}}', '{"seconds": 2, "psnr": true}'),
    "metrics of bytes": lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\xfe\0{}\n") and None,
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FIGURES)
def test_figures_of_any_kind_make_no_bug(run: Path, what: str, capsys: Any) -> None:
    FIGURES[what](run)
    code = main(["report", str(run)])
    err = capsys.readouterr().err
    assert code in (0, OutputError.exit_code), err
    if code == 0:
        page = (run / "report.html").read_text()
        assert DIGITS not in page and len(page) < 4_000_000
    list(read_metrics_log(run))


@pytest.mark.parametrize("low", [0.0, 1e14, -1e14, 1e-300])
@pytest.mark.parametrize("span", [0.0, 1e-13, 1e-3, 1e14])
def test_curves_of_any_range_are_drawn(low: float, span: float) -> None:
    assert "polyline" in curves("title", "unit", {"a": [(0.0, low), (1e9, low + span)], "b": [(5.0, low)]})


def pipe(run: Path, name: str) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)


@pytest.mark.parametrize(
    "name", ["run.json", "summary.json", "metrics.jsonl", "config.toml", "mesh.ply", "cameras.json"]
)
def test_pipes_are_not_waited_for(run: Path, name: str, capsys: Any) -> None:
    pipe(run, name)
    assert main(["report", str(run)]) == OutputError.exit_code
    (run / "mesh.ply").unlink(missing_ok=True)
    with pytest.raises(QuicksurfError):
        pipe(run, "mesh.ply")
        read_mesh(run / "mesh.ply")


def test_a_device_in_the_place_of_a_file_is_not_read(run: Path) -> None:
    (run / "summary.json").unlink()
    (run / "summary.json").symlink_to("/dev/zero")
    with pytest.raises(OutputError, match="device"):
        open_run(run)


def ply(vertices: str, faces: str, n_vertices: int = 3, n_faces: int = 1) -> str:
    return (
        f"ply\nformat ascii 1.0\nelement vertex {n_vertices}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {n_faces}\nproperty list uchar int vertex_indices\nend_header\n{vertices}{faces}"
    )


CORNERS = "0 0 0\n1 0 0\n0 1 0\n"
MESHES = {
    "face index large": ply(CORNERS, "3 0 1 999999999\n"),
    "face index negative": ply(CORNERS, "3 0 1 -5\n"),
    "NaN": ply("nan 0 0\n1 0 0\n0 1 0\n", "3 0 1 2\n"),
    "1e200": ply("1e200 0 0\n1 0 0\n0 1 0\n", "3 0 1 2\n"),
    "3e38": ply("0 0 0\n3e38 0 0\n0 3e38 0\n", "3 0 1 2\n"),
    "many vertices": ply(CORNERS, "3 0 1 2\n", n_vertices=99_999_999_999).replace(
        "ascii", "binary_little_endian"
    ),
    "many faces": ply(CORNERS, "3 0 1 2\n", n_faces=99_999_999_999).replace("ascii", "binary_little_endian"),
    "no area": ply("0 0 0\n0 0 0\n0 0 0\n", "3 0 1 2\n"),
    "empty": "",
}


@pytest.mark.parametrize("what", MESHES)
def test_meshes_that_cannot_be_used_are_said(tmp_path: Path, what: str, capsys: Any) -> None:
    path, truth = tmp_path / "mesh.ply", tmp_path / "truth.ply"
    path.write_text(MESHES[what])
    truth.write_text(ply(CORNERS, "3 0 1 2\n"))
    for mesh, other in ((path, truth), (truth, path)):
        code = main(["eval", str(mesh), "--truth", str(other)])
        message = capsys.readouterr().err
        assert code == SurfaceError.exit_code and message.count("\n") == 1 and len(message) < 800, message


@pytest.mark.slow
@pytest.mark.parametrize("binary", [False, True])
def test_a_mesh_that_is_cut_off_is_said_and_not_measured(tmp_path: Path, binary: bool, capsys: Any) -> None:
    path, truth = tmp_path / "mesh.ply", tmp_path / "truth.ply"
    trimesh.creation.icosphere(2).export(truth, encoding="binary" if binary else "ascii")
    content = truth.read_bytes()
    for fraction in (0.99, 0.6, 0.2):
        path.write_bytes(content[: content.rfind(b"\n", 0, int(fraction * len(content))) + 1])
        for mesh, other in ((path, truth), (truth, path)):
            assert main(["eval", str(mesh), "--truth", str(other)]) == SurfaceError.exit_code, fraction
            assert "mesh.ply" in capsys.readouterr().err
    path.write_bytes(content)
    assert main(["eval", str(path), "--truth", str(truth)]) == 0


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_surfaces_in_frames_of_their_own_are_said_at_once(tmp_path: Path, factor: float, capsys: Any) -> None:
    path, truth = tmp_path / "mesh.ply", tmp_path / "truth.ply"
    path.write_text(ply(f"0 0 0\n{factor} 0 0\n0 {factor} 0\n", "3 0 1 2\n"))
    truth.write_text(ply(CORNERS, "3 0 1 2\n"))
    assert main(["eval", str(path), "--truth", str(truth)]) == SurfaceError.exit_code
    assert "one frame" in capsys.readouterr().err
    truth.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "end_header\n0 0 0\n"
    )
    path.write_text(ply(CORNERS, "3 0 1 2\n"))
    assert main(["eval", str(path), "--truth", str(truth)]) == SurfaceError.exit_code


def test_litter_of_killed_commands_is_removed_under_the_lock(run: Path, tmp_path: Path) -> None:
    litter = [
        *(".config-a1b2c3d4.toml", ".run-________.json", ".mesh-xyz01234.ply", ".metrics-00000000.jsonl"),
        *("poses/sfm-abcd1234/database.db", "poses/.sfm-abcd1234.log", "export/.mesh-abcd1234.glb"),
        *("checkpoint.new/state.json", "poses/frames-abcd1234/0.jpg"),
    ]
    kept = ["notes-12345678.txt", ".hidden", ".my-notes.txt", "poses/sfm.log", "poses/frames/0.jpg"]
    for name in [*litter, *kept]:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    with open_run(run).locked():
        pass
    assert [name for name in litter if (run / name).exists()] == []
    assert [name for name in kept if not (run / name).exists()] == []
    assert not (run / "poses" / "sfm-abcd1234").exists()


def test_litter_alone_is_no_reason_to_keep_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    run: Run = claim_run(tmp_path / "run", tmp_path / "photos", False, False)
    (run.path / ".run-abcd1234.json").write_text("{")
    run.discard_if_unused()
    assert not run.path.exists()


def test_half_a_mesh_in_a_folder_of_the_users_is_removed_and_nothing_else(tmp_path: Path) -> None:
    litter = [".mesh-0a1b2c3d.ply", ".textured-00000000.png", ".mesh.frame-0a1b2c3d.json"]
    kept = [
        "mesh.ply",
        ".mesh-final.ply",
        ".mesh-settings.ply",
        ".notes-0a1b2c3d.ply",
        "in/.mesh-0a1b2c3d.ply",
    ]
    for name in [*litter, *kept]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    sweep_files(tmp_path, (*PRODUCTS, SIDECAR))
    assert [name for name in litter if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    sweep_files(tmp_path / "absent", PRODUCTS)


def test_logs_of_a_batch_follow_no_link(tmp_path: Path, capsys: Any) -> None:
    output, elsewhere = tmp_path / "batch", tmp_path / "elsewhere"
    (tmp_path / "captures" / "one").mkdir(parents=True)
    elsewhere.mkdir()
    output.mkdir()
    (output / "batch.json").write_text(json.dumps({"format": "quicksurf batch", "version": 1}))
    (output / "logs").symlink_to(elsewhere)
    command = ["batch", str(tmp_path / "captures"), "--output", str(output), "--minutes", "0.1"]
    assert main(command) == OutputError.exit_code
    (output / "logs").unlink()
    (output / "logs").mkdir()
    (output / "logs" / "one.log").symlink_to(elsewhere / "one")
    assert main(command) not in (0, BUG)
    assert not list(elsewhere.iterdir())
