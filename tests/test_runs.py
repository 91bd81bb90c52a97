"""The run folder: who may write to it, what survives a kill, what damage is called."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from quicksurf.app.run import checkpoint
from quicksurf.app.run.folder import Run, claim_run, default_output, is_run, open_run
from quicksurf.app.run.metrics_log import MAX_BYTES, append_metrics, read_metrics_log, repair_metrics_log
from quicksurf.errors import OutputError
from quicksurf.files import write_json
from quicksurf.model import TrainedModel


class Field(TrainedModel):
    """Stands for a TrainedModel: saves one file, and stops half-way if told to."""

    def __init__(self, text: str, fails: bool = False) -> None:
        self.text, self.fails = text, fails

    def save(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "field").write_text(self.text)
        if self.fails:
            raise OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def field_saves_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda field, folder: field.save(folder))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path: Path, source: Path) -> Run:
    return claim_run(tmp_path / "run", source, False, False)


def finish(run: Run) -> None:
    run.save_checkpoint(Field("one"))
    write_json(run.path / "summary.json", {"faces": 1})


def test_default_output_is_a_plain_name() -> None:
    assert default_output("my photos (1)/é").parent == Path("runs")
    assert default_output("a b").name.startswith("a-b-2")
    assert default_output("..").name.startswith("capture-2")


def test_new_run_is_marked_and_opens_again(run: Run, source: Path) -> None:
    assert is_run(run.path)
    assert run.state == "new"
    assert open_run(run.path).source == source.resolve()


def test_an_empty_folder_may_be_used(tmp_path: Path, source: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert claim_run(tmp_path / "empty", source, False, False).state == "new"


def test_a_folder_that_is_not_a_run_is_left_alone(tmp_path: Path, source: Path) -> None:
    (source / "a.jpg").write_text("x")
    with pytest.raises(OutputError, match="files that are not a run's"):
        claim_run(source, source, True, True)
    assert [path.name for path in source.iterdir()] == ["a.jpg"]


def test_a_file_is_no_output(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        claim_run(tmp_path / "file", source, False, False)


def test_a_run_of_another_source_is_left_alone(run: Run, tmp_path: Path) -> None:
    finish(run)
    with pytest.raises(OutputError, match="holds a run of"):
        claim_run(run.path, tmp_path / "other", True, True)


def test_unfinished_run_goes_on_only_when_asked(run: Run, source: Path) -> None:
    run.save_checkpoint(Field("one"))
    with pytest.raises(OutputError, match="--resume"):
        claim_run(run.path, source, False, True)
    assert claim_run(run.path, source, True, False).state == "unfinished"


def test_finished_run_takes_more_minutes_only_when_asked(run: Run, source: Path) -> None:
    finish(run)
    with pytest.raises(OutputError, match="--minutes"):
        claim_run(run.path, source, False, False)
    assert claim_run(run.path, source, False, True).state == "finished"


def test_finished_run_is_unfinished_while_minutes_are_added(run: Run) -> None:
    finish(run)
    run.begin_fit()
    assert run.state == "unfinished"
    assert json.loads((run.path / "summary.previous.json").read_text()) == {"faces": 1}
    run.finish({"faces": 2})
    assert run.state == "finished"
    assert run.read_summary() == {"faces": 2}
    assert not (run.path / "summary.previous.json").exists()


def test_nothing_to_resume(tmp_path: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="no run to resume"):
        claim_run(tmp_path / "absent", source, True, False)
    assert not (tmp_path / "absent").exists()


def test_lock_keeps_a_second_process_out_and_is_let_go(run: Run) -> None:
    with (
        open(run.path / ".lock", "a") as other,
    ):
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="in use"), run.locked():
            pass
    with run.locked():
        pass


def test_folder_that_cannot_be_locked_is_said(run: Run) -> None:
    (run.path / ".lock").mkdir()  # cannot be opened, by root neither
    with pytest.raises(OutputError, match=r"cannot write .*\.lock"), run.locked():
        pass


def test_checkpoint_is_replaced(run: Run) -> None:
    for text in ("one", "two"):
        run.save_checkpoint(Field(text))
    assert _checkpoint_text(run) == "two"
    assert {path.name for path in run.path.iterdir()} == {"run.json", "checkpoint"}


def test_full_disk_keeps_the_old_checkpoint(run: Run) -> None:
    run.save_checkpoint(Field("one"))
    with pytest.raises(OutputError, match="last checkpoint is kept"):
        run.save_checkpoint(Field("two", fails=True))
    assert _checkpoint_text(run) == "one"


def test_kill_between_the_two_renames_loses_nothing(run: Run) -> None:
    run.save_checkpoint(Field("one"))
    (run.path / "checkpoint").rename(run.path / "checkpoint.old")
    assert _checkpoint_text(run) == "one"
    assert run.state == "unfinished"
    run.save_checkpoint(Field("two"))
    assert _checkpoint_text(run) == "two"


def test_metrics_are_lines_of_json_and_a_torn_one_is_dropped(run: Run, source: Path) -> None:
    append_metrics(run.path, {"step": 1, "loss": 0.5, "psnr_held_out": None})
    append_metrics(run.path, {"step": 2, "loss": float("nan"), "psnr_held_out": 20.0})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "lo')
    repair_metrics_log(run.path)
    append_metrics(run.path, {"step": 4, "loss": 0.1})
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 4]
    assert lines[1] == {"step": 2, "loss": None, "psnr_held_out": 20.0}


def test_sittings_follow_one_another_in_the_course(run: Run) -> None:
    for seconds in (1.0, 2.5, 0.5, 3.0, 0.25):  # begun, gone on with, and again
        append_metrics(run.path, {"seconds": seconds, "psnr": 20.0})
    assert [line["seconds"] for line in read_metrics_log(run.path)] == [1.0, 2.5, 3.0, 5.5, 5.75]


def test_lines_without_seconds_are_no_part_of_the_course(run: Run) -> None:
    assert read_metrics_log(run.path) == []
    lines = (
        '{"seconds": 1.0, "psnr": null}',
        "[1]",
        '{"seconds": null}',
        '{"psnr": 2}',
        '{"seconds": 4.0}',
        '{"sec',
    )
    (run.path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_metrics_log(run.path) == [{"seconds": 1.0, "psnr": None}, {"seconds": 4.0}]
    with open(run.path / "metrics.jsonl", "r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room
    assert read_metrics_log(run.path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[1]", "expected a JSON object"),
        ("{}", "expected format"),
        ('{"format": "quicksurf run", "source": 3}', "expected format"),
        ('{"format": "quicksurf run", "source": "x", "version": 99}', "another version"),
    ],
)
def test_damaged_marker_is_said(run: Run, content: str, message: str) -> None:
    (run.path / "run.json").write_text(content)
    with pytest.raises(OutputError, match=message):
        open_run(run.path)


def test_damaged_summary_is_said(run: Run) -> None:
    (run.path / "summary.json").write_text('{"faces": ')
    with pytest.raises(OutputError, match=r"summary\.json is damaged"):
        run.read_summary()


@pytest.mark.parametrize("roi", [[1, 2, 3], ["x", 0, 0, 1], 7])
def test_damaged_roi_is_said(run: Run, roi: Any) -> None:
    run.update(roi=roi)
    with pytest.raises(OutputError, match="expected four numbers"):
        assert open_run(run.path).roi


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such folder"):
        open_run(tmp_path / "absent")
    with pytest.raises(OutputError, match=r"has no run\.json"):
        open_run(tmp_path)


def test_unused_folder_is_removed_and_a_used_one_kept(run: Run) -> None:
    run.save_checkpoint(Field("one"))
    run.discard_if_unused()
    assert _checkpoint_text(run) == "one"
    (run.path / "checkpoint" / "field").unlink()
    (run.path / "checkpoint").rmdir()
    run.discard_if_unused()
    assert not run.path.exists()


def test_logs_of_a_search_for_poses_are_litter_and_its_frames_are_not(run: Run) -> None:
    (run.path / "poses" / "frames").mkdir(parents=True)
    (run.path / "poses" / "sfm.log").write_text("nothing matched")
    (run.path / "poses" / "frames" / "0.jpg").write_text("")
    run.discard_if_unused()
    assert (run.path / "poses" / "frames" / "0.jpg").exists()
    (run.path / "poses" / "frames" / "0.jpg").unlink()
    run.discard_if_unused()
    assert not run.path.exists()


def _checkpoint_text(run: Run) -> str:
    folder = run.checkpoint_folder()
    assert folder is not None
    return (folder / "field").read_text()


def test_a_folder_whose_first_file_a_kill_cut_short_may_be_used(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".run-0a1b2c3d.json").write_text('{"form')
    run = claim_run(folder, source, False, False)
    with run.locked():
        assert {path.name for path in folder.iterdir()} == {".lock", "run.json"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".my-settings.json").write_text("{}")
    with pytest.raises(OutputError, match="not a run's"):
        claim_run(tmp_path / "other", source, False, False)


def test_a_kill_between_the_renames_of_checkpoints_keeps_the_newer(run: Run) -> None:
    run.save_checkpoint(Field("one"))
    (run.path / "checkpoint").rename(run.path / "checkpoint.old")
    Field("two").save(run.path / "checkpoint.new")
    with run.locked():
        assert (run.path / "checkpoint" / "field").read_text() == "two"
    assert not {"checkpoint.old", "checkpoint.new"} & {path.name for path in run.path.iterdir()}


def test_what_a_kill_leaves_of_an_older_checkpoint_and_summary_is_removed(run: Run) -> None:
    finish(run)
    Field("zero").save(run.path / "checkpoint.old")
    (run.path / "summary.previous.json").write_text("{}")
    with run.locked():
        assert (run.path / "checkpoint" / "field").read_text() == "one"
    assert not {"checkpoint.old", "summary.previous.json"} & {path.name for path in run.path.iterdir()}


def test_a_half_written_checkpoint_beside_the_old_one_is_dropped(run: Run) -> None:
    run.save_checkpoint(Field("one"))
    Field("tw").save(run.path / "checkpoint.new")
    with run.locked():
        assert (run.path / "checkpoint" / "field").read_text() == "one"
    assert not (run.path / "checkpoint.new").exists()


def test_a_checkpoint_that_is_dropped_is_gone_whole_or_not_at_all(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save_checkpoint(Field("one"))

    def killed(path: Path) -> None:
        if path.name == "checkpoint.new" and path.exists():
            (path / "field").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("quicksurf.app.run.folder.remove", killed)
    with pytest.raises(KeyboardInterrupt):
        run.drop_checkpoint()
    assert run.state == "new" and not (run.path / "checkpoint").exists()
