"""Files and folders are there as a whole or not at all."""

import pytest

from hf_explain.jobs.folders import clean, remove, scratch, whole, write_whole


def written(folder):
    """name -> text of everything in it."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_takes_the_place_of_an_earlier_one(tmp_path):
    write_whole(tmp_path / "a.json", b"old")
    with pytest.raises(KeyError), whole(tmp_path / "a.json") as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert written(tmp_path) == {"a.json": "old"}
    write_whole(tmp_path / "a.json", b"new")
    assert written(tmp_path) == {"a.json": "new"}


def test_a_folder_takes_the_place_of_an_earlier_one(tmp_path):
    for names in (("one", "two"), ("two", "three")):
        with whole(tmp_path / "checkpoint-3") as unfinished:
            unfinished.mkdir()
            for name in names:
                (unfinished / name).write_text(name)
            assert not (unfinished.parent / "checkpoint-3" / "three").exists()
    assert written(tmp_path / "checkpoint-3") == {"two": "two", "three": "three"}
    with pytest.raises(KeyError), whole(tmp_path / "checkpoint-3") as unfinished:
        unfinished.mkdir()
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_what_is_half_written_goes_and_nothing_else(tmp_path):
    kept = {".gitattributes", ".pre-commit-config.yaml", "a.unfinished", "checkpoint-2"}
    for name in kept:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".part.1.unfinished").write_text("half")
    (tmp_path / ".checkpoint-4.1.unfinished" / "classifier").mkdir(parents=True)
    clean(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_removing_and_scratch(tmp_path):
    (tmp_path / "checkpoint-2" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("checkpoint-2", "file", "nothing"):
        remove(tmp_path / name)
    with scratch(tmp_path / "explainer") as unfinished:
        unfinished.mkdir()
    assert not [*tmp_path.iterdir()]
