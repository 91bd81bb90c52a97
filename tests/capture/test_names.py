"""Names of other machines are matched to the files of this one where that is unique, and never outside the capture."""

import pytest
from test_masks import touch

from quicksurf.capture.listing import files_below
from quicksurf.capture.names import find_named, looked_in, parts_of
from quicksurf.errors import CaptureError

STEMS = ["0000.jpg", "0001.jpg", "0002.jpg"]


def found_in(tmp_path, names, folders=("images",)):
    named = find_named(names, tmp_path, [tmp_path / folder for folder in folders])
    return [
        named.paths[name].relative_to(tmp_path).as_posix() for name in names if name in named.paths
    ], named.note


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ("images_4/{}", "{}"),
        ("photos/{}", "{}"),
        ("anything at all/{}", "{}"),
        ("deep/er/{}", "{}"),
        ("images/{}", "images/{}"),
        ("images/cam1/{}", "cam1\\{}"),
        ("images/{}", "C:\\Users\\a b\\capture\\images\\{}"),
        ("images/{}", "/home/somebody/capture/images/{}"),
        ("images/{}", "/mnt/other/{}"),
        ("images/{}", "../images/{}"),
        ("images/{}", "../../x/y/{}"),
        ("images/{}", "./images//{}"),
        ("images/IMG {}", "IMG {}"),
        ("images/cam1\\{}", "cam1/{}"),  # unpacked from a zip of Windows
    ],
)
def test_names_are_matched_by_their_last_parts(tmp_path, files, names):
    written = [files.format(stem) for stem in STEMS]
    touch(tmp_path / written[0].rpartition("/")[0], [name.rpartition("/")[2] for name in written])
    assert found_in(tmp_path, [names.format(stem) for stem in STEMS])[0] == written


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        *[("A.JPG", "a.jpg"), ("a.png", "a.jpg"), ("a.jpg", "a.jpeg"), ("a.jpg", "A"), ("a.jpg", "a")],
        *[("e\u0301.jpg", "\u00e9.jpg"), ("\u00e9.jpg", "e\u0301.jpg"), ("a b.jpg", "a%20b.jpg")],
    ],
)
def test_case_suffix_accents_and_percent_signs_do_not_matter(tmp_path, stem, name):
    touch(tmp_path / "images", [stem])
    assert found_in(tmp_path, [name])[0] == [f"images/{stem}"]


def test_absolute_paths_inside_are_those_files(tmp_path):
    touch(tmp_path / "images", STEMS)
    names = [str(tmp_path / "images" / stem) for stem in STEMS]
    assert found_in(tmp_path, names, ["."]) == ([f"images/{stem}" for stem in STEMS], "")


def test_names_as_they_stand_win_and_deleted_photos_stay_deleted(tmp_path):
    """A smaller copy of a photo that the user took away is not that photo."""
    touch(tmp_path / "images", STEMS[:1])
    touch(tmp_path / "images_4", STEMS)
    assert found_in(tmp_path, STEMS) == (["images/0000.jpg"], "")


def test_of_several_folders_the_fullest_then_the_likeliest_is_taken(tmp_path):
    touch(tmp_path / "images_8", STEMS)
    touch(tmp_path / "images_2", STEMS)
    assert found_in(tmp_path, STEMS)[0][0] == "images_2/0000.jpg"
    touch(tmp_path / "input", STEMS)
    assert found_in(tmp_path, STEMS)[0][0] == "input/0000.jpg"
    (tmp_path / "input/0000.jpg").unlink()
    found, note = found_in(tmp_path, STEMS)
    assert found[0] == "images_2/0000.jpg"
    assert note == "3 photos are not where the file says: 0000.jpg is read from images_2/0000.jpg"


def test_two_names_never_share_a_file(tmp_path):
    touch(tmp_path / "images", STEMS)
    names = [f"left/{stem}" for stem in STEMS] + [f"right/{stem}" for stem in STEMS]
    assert found_in(tmp_path, names) == ([], "")


def test_masks_are_not_photos(tmp_path):
    touch(tmp_path / "masks", STEMS)
    assert found_in(tmp_path, STEMS) == ([], "")


def test_where_was_looked_is_told(tmp_path):
    text = looked_in(["cam1\\0000.jpg", "b", "c"], tmp_path, [tmp_path / "images", tmp_path])
    assert text == f"looked in images/ and {tmp_path} for cam1\\0000.jpg and 2 more"


@pytest.mark.parametrize("name", ["", "a\0b.jpg", "x" * 100_000, 7, None, ["a.jpg"]])
def test_what_is_no_path_is_refused_in_short(tmp_path, name):
    with pytest.raises(CaptureError, match="frame 3: a path of at most") as caught:
        parts_of(tmp_path, name, "frame 3")
    assert len(str(caught.value)) < 200


def test_a_name_longer_than_any_file_is_absent(tmp_path):
    assert found_in(tmp_path, ["x" * 4000 + ".jpg"]) == ([], "")


def test_links_to_folders_are_not_followed_and_hidden_files_not_seen(tmp_path):
    touch(tmp_path / "images", ["a.jpg", "._a.jpg", ".DS_Store"])
    touch(tmp_path / "images/@eaDir", ["a.jpg"])
    (tmp_path / "images/all").symlink_to("/")
    (tmp_path / "images/up").symlink_to(tmp_path)
    assert files_below(tmp_path) == [tmp_path / "images/a.jpg"]
