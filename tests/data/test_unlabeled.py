"""Any collection of pictures becomes rows of pixel values."""

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from families import processor

from hf_explain import ExplainerError
from hf_explain.data.scenes import draw_scene
from hf_explain.data.unlabeled import PictureStream, choose, hold_out, open_pictures
from hf_explain.training.batches import Stream

PROCESSOR = processor(16)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def picture(number, size=(16, 16)):
    """Of one gray."""
    return PIL.Image.new("RGB", size, (10 * number,) * 3)


def gray(row):
    """Which `picture` a row holds."""
    assert row["pixel_values"].shape == (3, 16, 16) and row["pixel_values"].dtype == torch.float32
    return round(float((row["pixel_values"].mean() * 0.5 + 0.5) * 255 / 10))


def read(name, **options):
    return open_pictures(str(name), PROCESSOR, **options)


def table(count=6, column="image", start=0, **columns):
    values = {column: [picture(start + i) for i in range(count)]} | columns
    return datasets.Dataset.from_dict(values).cast_column(column, datasets.Image())


@pytest.fixture
def folder(tmp_path):
    """Six pictures, the last ones in class folders."""
    for number in range(6):
        where = tmp_path / "pictures" / ("." if number < 2 else f"class{number % 2}")
        where.mkdir(parents=True, exist_ok=True)
        picture(number).save(where / f"{number}.png")
    return tmp_path / "pictures"


def kinds(tmp_path, folder):
    table().save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=table(), test=table(2, start=8)).save_to_disk(tmp_path / "splits")
    (tmp_path / "parquet").mkdir()
    table(3).to_parquet(tmp_path / "parquet" / "a.parquet")
    table(3, start=3).to_parquet(tmp_path / "parquet" / "b.parquet")
    names = ["saved", "splits", "parquet", "parquet/*.parquet"]
    return {"imagefolder": folder} | {name: tmp_path / name for name in names}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["imagefolder", "saved", "splits", "parquet", "parquet/*.parquet"])
def test_every_kind_holds_the_same_pictures(kind, streaming, tmp_path, folder):
    rows = read(kinds(tmp_path, folder)[kind], streaming=streaming)
    assert isinstance(rows, PictureStream) == streaming
    assert sorted(gray(row) for row in (rows if streaming else map(rows.__getitem__, range(len(rows))))) == [*range(6)]


def test_splits_and_sizes(tmp_path, folder):
    splits = kinds(tmp_path, folder)["splits"]
    assert [gray(row) for row in map(read(splits, split="test").__getitem__, range(2))] == [8, 9]
    assert len(read(splits, size=4)) == 4 and len(read(splits, size=40)) == 6
    assert len(list(read(splits, size=4, streaming=True))) == 4
    with pytest.raises(ExplainerError, match="no split 'validation', but train, test"):
        read(splits, split="validation")
    with pytest.raises(ExplainerError, match="dataset_size=0; give an integer of at least 1"):
        read(splits, size=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_of_files(streaming, tmp_path, folder):
    where = tmp_path / "named"
    where.mkdir()
    table(3).to_parquet(where / "train-00000-of-00001.parquet")
    table(2, start=8).to_parquet(where / "test-00000-of-00001.parquet")

    def grays(name, **options):
        rows = read(name, streaming=streaming, **options)
        return sorted(gray(row) for row in (rows if streaming else map(rows.__getitem__, range(len(rows)))))

    assert grays(where) == [0, 1, 2] and grays(where, split="test") == [8, 9]
    single = where / "test-00000-of-00001.parquet"
    saved = kinds(tmp_path, folder)["saved"]
    assert grays(single) == grays(single, split="train") == [8, 9] and grays(saved, split="train") == [*range(6)]
    for name, split in ((where, "validation"), (single, "test"), (where / "*.parquet", "test"), (saved, "test")):
        with pytest.raises(ExplainerError, match=f"could not be opened as a data set .*{split}"):
            grays(name, split=split)


def test_scenes_are_those_of_the_generator():
    rows = read("scenes", size=5, image_size=32, seed=3)
    expected = PROCESSOR(images=PIL.Image.fromarray(draw_scene(3, 4, 32).image), return_tensors="pt")["pixel_values"][0]
    assert len(rows) == 5 and torch.equal(rows[4]["pixel_values"], expected)
    with pytest.raises(ExplainerError, match="leave streaming out"):
        read("scenes", streaming=True)


def test_pictures_are_upright_and_rgb(tmp_path):
    values = np.zeros((16, 16), np.uint8)
    values[:8] = 200
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    (tmp_path / "few").mkdir()
    PIL.Image.fromarray(values).save(tmp_path / "few" / "turned.png", exif=exif)
    pixels = read(tmp_path / "few")[0]["pixel_values"]
    assert pixels.shape == (3, 16, 16) and (pixels[:, 8:] > 0).all() and (pixels[:, :8] < 0).all()


def test_columns(tmp_path):
    table(2, "photo", label=[0, 1]).save_to_disk(tmp_path / "one")
    assert gray(read(tmp_path / "one")[1]) == 1
    two = table(2, "photo").add_column("n", [0, 1]).map(lambda row: {"mask": row["photo"]})
    two.cast_column("mask", datasets.Image()).save_to_disk(tmp_path / "two")
    with pytest.raises(
        ExplainerError, match="several columns of pictures, photo, mask; name the one to use with image_"
    ):
        read(tmp_path / "two")
    assert gray(read(tmp_path / "two", image_column="mask")[1]) == 1
    with pytest.raises(ExplainerError, match="no column 'picture'; it has photo, n, mask"):
        read(tmp_path / "two", image_column="picture")
    with pytest.raises(ExplainerError, match=r"column 'n' of .* holds int64, not pictures"):
        read(tmp_path / "two", image_column="n")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "none")
    with pytest.raises(ExplainerError, match=r"no column of pictures; name the one to use .* out of text"):
        read(tmp_path / "none")


def test_paths_in_a_column(tmp_path, folder):
    datasets.Dataset.from_dict({"file": [str(folder / "1.png")]}).save_to_disk(tmp_path / "paths")
    assert gray(read(tmp_path / "paths", image_column="file")[0]) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_picture_is_named(streaming, folder):
    (folder / "broken.png").write_bytes((folder / "1.png").read_bytes()[:40])
    rows = read(folder, streaming=streaming)
    with pytest.raises(ExplainerError, match=r"broken.png\): .* cannot be read as a picture") as caught:
        list(rows if streaming else map(rows.__getitem__, range(len(rows))))
    assert streaming or "row " in str(caught.value)


def test_an_empty_cell_is_named(tmp_path):
    values = datasets.Dataset.from_dict({"image": [picture(1), None]})
    values.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "holes")
    with pytest.raises(ExplainerError, match=r"row 1 of .*holes is empty"):
        read(tmp_path / "holes")[1]


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(
        ExplainerError, match=r"'/nowhere/at/all' could not be opened .*there is no such folder or file"
    ):
        read("/nowhere/at/all")
    with pytest.raises(ExplainerError, match="'nobody/nothing' could not be opened as a data set"):
        read("nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExplainerError, match="could not be opened"):
        read(tmp_path / "empty")
    with pytest.raises(ExplainerError, match="the classifier has no image processor"):
        open_pictures("scenes", None)


def test_held_out_pictures_are_never_trained_on():
    for total, count, expected in ((100, None, 10), (2000, None, 64), (100, 30, 30), (5, None, 0)):
        kept, judged = hold_out(range(total), count, seed=0)
        assert (len(judged) if judged else 0) == expected and len(kept) == total - expected
        assert sorted([*kept, *(judged or [])]) == list(range(total))
    one, same, other = (list(hold_out(range(100), 10, seed)[1]) for seed in (0, 0, 1))
    assert one == same != other
    with pytest.raises(ExplainerError, match="eval_size=5 of 5 pictures leaves none"):
        hold_out(range(5), 5, 0)


def test_choosing_from_pictures_for_evaluation():
    assert sorted(choose(range(9), 20, 0)) == list(range(9)) and len(choose(range(1000), None, 0)) == 64
    assert choose(iter(range(9)), 3, 0) == [0, 1, 2] and choose(range(9), 0, 0) is None
    with pytest.raises(ExplainerError, match="eval_size=-1; give 0 or more"):
        choose(range(9), -1, 0)


def test_streams_are_shared_and_resumed(tmp_path, folder):
    """Two processes see every picture of an epoch once; one that goes on repeats nothing."""
    where = kinds(tmp_path, folder)["parquet"]

    def stream(rank, state=None):
        return Stream(read(where, streaming=True, buffer_size=1), 1, rank, 2, state)

    seen = []
    for rank in (0, 1):
        first = stream(rank)
        one = float(next(first).mean())
        second = stream(rank, first.state())
        seen += [one, *(float(next(second).mean()) for _ in range(2))]
    assert sorted(round((value * 0.5 + 0.5) * 25.5) for value in seen) == list(range(6))


def test_epochs_of_a_stream_differ(tmp_path, folder):
    rows = read(kinds(tmp_path, folder)["saved"], streaming=True, buffer_size=6)
    orders = []
    for epoch in (0, 1, 0):
        rows.set_epoch(epoch)
        orders.append([gray(row) for row in rows])
    assert orders[0] == orders[2] != orders[1] and sorted(orders[0]) == sorted(orders[1])
