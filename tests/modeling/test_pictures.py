"""Whatever a person calls a picture becomes the same upright RGB picture, or one sentence says why it cannot."""

import base64
import functools
import http.server
import io
import pathlib
import struct
import threading
import zlib

import numpy as np
import PIL.Image
import pytest
import torch

from hf_explain import ExplainerError
from hf_explain.modeling.pictures import open_picture

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GRAY = RGB[..., 0]


def encoded(image, format="PNG", **kwargs) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **kwargs)
    return file.getvalue()


PICTURE = PIL.Image.fromarray(RGB)
PNG = encoded(PICTURE)


def assert_refused(source, *words):
    with pytest.raises(ExplainerError) as caught:
        open_picture(source)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and message.endswith(".") and ";" in message, message
    for word in words:
        assert word in message, message


# ---- kinds ----


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "cat.png").write_bytes(PNG)
    (folder / "page.html").write_text("<html>not a picture</html>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_every_kind_of_source_is_the_same_picture(tmp_path, server):
    path = tmp_path / "a picture ü.png"
    path.write_bytes(PNG)
    text = base64.b64encode(PNG).decode()
    wrapped = "\n".join(text[i : i + 20] for i in range(0, len(text), 20))
    sources = [PICTURE, PIL.Image.open(path), path, str(path), f"{server}/cat.png", PNG, bytearray(PNG)]
    sources += [text, wrapped, f"data:image/png;base64,{text}"]
    sources += [{"bytes": PNG, "path": None}, {"bytes": None, "path": str(path)}, {"bytes": PNG, "path": "gone.png"}]
    for source in sources:
        picture = open_picture(source)
        assert picture.mode == "RGB" and np.array_equal(np.asarray(picture), RGB), source
    assert PICTURE.size == (7, 5)


def test_datasets_cells(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(decode=False)})
    cells = datasets.Dataset.from_dict({"image": [PICTURE]}, features=features)["image"]
    assert np.array_equal(np.asarray(open_picture(cells[0])), RGB)


ARRAYS = {
    "(H, W, 3)": (RGB, RGB),
    "(3, H, W)": (RGB.transpose(2, 0, 1), RGB),
    "(H, W)": (GRAY, GRAY),
    "(H, W, 1)": (GRAY[..., None], GRAY),
    "(1, H, W)": (GRAY[None], GRAY),
    "(H, W, 4)": (np.dstack([RGB, GRAY]), RGB),
    "(4, H, W)": (np.dstack([RGB, GRAY]).transpose(2, 0, 1), RGB),
    "(3, 3, 3)": (RGB[:3, :3], RGB[:3, :3]),
    "not contiguous": (RGB[::-1, ::2], RGB[::-1, ::2]),
    "(1, 1, 3)": (RGB[:1, :1], RGB[:1, :1]),
    "uint16": (RGB.astype(np.uint16) * 257, RGB),
    "int64": (RGB.astype(np.int64), RGB),
    "float64": (RGB / 255, RGB),
    "float16": ((RGB / 255).astype(np.float16), RGB),
    "a little more than 1": (RGB / 255 * 1.0002, RGB),
    "bool": (GRAY > 99, (GRAY > 99) * np.uint8(255)),
    "tensor": (torch.from_numpy(RGB), RGB),
    "tensor (3, H, W)": (torch.from_numpy(RGB).permute(2, 0, 1).float() / 255, RGB),
    "with gradient": ((torch.from_numpy(RGB).float() / 255).requires_grad_(), RGB),
    "bfloat16": (torch.from_numpy(GRAY > 99).bfloat16(), (GRAY > 99) * np.uint8(255)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name):
    source, expected = ARRAYS[name]
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    assert np.array_equal(np.asarray(open_picture(source)), expected)


# ---- modes and files ----


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation(orientation, format):
    shown = np.zeros((16, 24, 3), np.uint8)  # a bright corner in the upper left
    shown[:8, :8] = 255
    turn = {  # how a camera stores what is shown, EXIF 2.3: where the 0th row and the 0th column are
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x.transpose(1, 0, 2)[::-1],
        7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    }
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIL.Image.fromarray(np.ascontiguousarray(turn[orientation](shown))), format, exif=exif)
    picture = np.asarray(open_picture(data))
    assert picture.shape == shown.shape
    assert np.abs(picture.astype(int) - shown).max() < 10


def test_16_bits_with_orientation():
    values = np.arange(6, dtype=np.uint16).reshape(2, 3) * 10_000
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture = open_picture(encoded(PIL.Image.fromarray(values), "PNG", exif=exif))
    assert picture.size == (2, 3)
    assert np.abs(np.asarray(picture)[..., 0] - np.rot90(values, -1) / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_modes(mode):
    image = PICTURE.convert("L").convert("LA").convert("PA") if mode == "PA" else PICTURE.convert(mode)
    picture = open_picture(image)
    assert picture.mode == "RGB" and picture.size == (7, 5)
    if mode in ("L", "LA"):
        assert np.array_equal(np.asarray(picture)[..., 1], np.asarray(PICTURE.convert("L")))
    if mode in ("RGBA", "RGBX", "CMYK"):
        assert np.array_equal(np.asarray(picture), RGB)


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_does_not_warn():
    image = PICTURE.convert("P")
    assert open_picture(encoded(image, transparency=bytes(range(256)))).mode == "RGB"


def png(size, depth, color_type, rows=b""):
    """A PNG written by hand."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("highest", [65535, 200])  # also one so dark that it would pass for 8 bits
def test_16_bits_are_scaled_not_cut(highest):
    values = np.linspace(0, highest, 35).reshape(5, 7).astype(np.uint16)
    little, big = PIL.Image.fromarray(values), PIL.Image.frombytes("I;16B", (7, 5), values.astype(">u2").tobytes())
    by_hand = png((7, 5), 16, 0, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    sources = [little, big, by_hand, encoded(little, "TIFF"), encoded(big, "TIFF")]
    for source in sources:
        assert np.abs(np.asarray(open_picture(source))[..., 0] - values / 257).max() <= 0.5


def test_modes_i_and_f():
    values = np.linspace(0, 65535, 35).reshape(5, 7)
    assert (
        np.abs(np.asarray(open_picture(PIL.Image.fromarray(values.astype(np.int32))))[..., 0] - values / 257).max() <= 1
    )
    for image in (PICTURE.convert("L").convert("I"), PICTURE.convert("L").convert("F")):
        assert np.array_equal(np.asarray(open_picture(image))[..., 0], np.asarray(PICTURE.convert("L")))
    share = PIL.Image.fromarray((GRAY / 255).astype(np.float32))
    assert np.array_equal(np.asarray(open_picture(share))[..., 0], GRAY)
    assert_refused(PIL.Image.fromarray(np.full((2, 2), np.nan, np.float32)), "nan", "scale it")
    assert_refused(PIL.Image.fromarray(np.full((2, 2), 70_000, np.int32)), "70000", "65535")
    assert_refused(PIL.Image.fromarray(np.full((2, 2), -1, np.int32)), "-1", "scale it")


def test_cmyk_jpeg_gif_and_one_pixel():
    red = PIL.Image.new("RGB", (16, 16), (255, 0, 0))
    assert np.asarray(open_picture(encoded(red.convert("CMYK"), "JPEG")))[8, 8].tolist() == pytest.approx(
        [254, 0, 0], abs=3
    )
    frames = [PIL.Image.new("RGB", (4, 4), color) for color in ("lime", "red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(open_picture(gif))[0, 0].tolist() == [0, 255, 0]
    assert open_picture(PIL.Image.new("L", (1, 1), 9)).getpixel((0, 0)) == (9, 9, 9)


def test_no_file_stays_open(tmp_path, monkeypatch):
    PICTURE.save(tmp_path / "moving.gif", save_all=True, append_images=[PIL.Image.new("RGB", (7, 5))])
    opened, real = [], PIL.Image.open
    monkeypatch.setattr(PIL.Image, "open", lambda file: opened.append(real(file)) or opened[-1])
    open_picture(tmp_path / "moving.gif")
    assert opened[0].fp is None


# ---- what is no picture ----


def test_bad_files(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    good, jpeg = (encoded(PIL.Image.fromarray(noise), format) for format in ("PNG", "JPEG"))
    files = {
        "truncated.png": good[: len(good) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "corrupt.png": good[:60] + b"\xff" * 8 + good[68:],
        "no header.png": good[:10] + b"\xff" * 8 + good[18:],
        "empty.png": b"",
        "text.png": b"This is not a picture.",
        "bomb.png": png((50_000, 50_000), 8, 2),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        expected = "pixels" if name == "bomb.png" else "complete"
        assert_refused(tmp_path / name, name, expected)
        assert_refused(data, f"{len(data)}", expected)
    assert_refused(tmp_path, str(tmp_path)[:50], "folder")
    assert_refused(tmp_path / "missing.png", "missing.png", "no file")


def test_lazily_opened_image_that_is_truncated(tmp_path):
    path = tmp_path / "half.png"
    path.write_bytes(PNG[: len(PNG) - 40])
    assert_refused(PIL.Image.open(path), "the given PIL image", "complete")


@pytest.mark.parametrize("name", ["", "cats", "data/cats/dog1", "no such.png", "x" * 5000, "a\0b", "C:\\cat.png"])
def test_missing_files(name):
    assert_refused(name, "no file" if len(name) < 255 else "complete")  # so long a name is base64 of something


def test_bad_addresses(server):
    assert_refused(f"{server}/gone.png", "/gone.png", "404", "check the address")
    assert_refused(f"{server}/page.html", "page.html", "complete")
    assert_refused("http://127.0.0.1:1/cat.png", "127.0.0.1:1", "check the address")
    assert_refused("http://[bad/cat.png", "check the address")
    assert_refused("data:image/png;base64,AAAA", "data:image", "complete")
    assert_refused("data:image/png;base64,***", "no file")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), ["(2, 4, 4, 3)", "batch", "list(array)"]),
        (np.zeros((4,), np.uint8), ["(4,)"]),
        (np.zeros((5, 6, 2), np.uint8), ["(5, 6, 2)"]),
        (np.zeros((0, 4, 3), np.uint8), ["(0, 4, 3)"]),
        (np.full((4, 4), 255.0), ["float64", "255", "[0, 1]"]),
        (np.full((4, 4), -0.5), ["-0.5", "[0, 1]"]),
        (np.full((4, 4), np.nan), ["nan", "[0, 1]"]),
        (np.full((4, 4), 300), ["int64", "300", "[0, 255]"]),
        (np.full((4, 4), 1j), ["complex128"]),
        (np.array([["a.png"]]), ["<U5"]),
        (torch.zeros(2, 3, 8, 8), ["(2, 3, 8, 8)", "batch"]),
    ],
)
def test_bad_arrays(array, words):
    assert_refused(array, *words)


@pytest.mark.parametrize("source", [None, 3, {}, {"image": 1}, {"bytes": None, "path": None}, object(), pathlib])
def test_no_picture_at_all(source):
    assert_refused(source, type(source).__name__, "give a PIL image")
