"""What the tests of the app share: a tiny explainer, pictures, and files that must be refused."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
from families import LABELS, build, processor

import hf_explain
from hf_explain.data.scenes import draw_scene

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
ROOT = Path(__file__).resolve().parents[2]


def make_explainer(folder, labels=LABELS):
    """The folder of an untrained explainer with its classifier inside, as a string."""
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(
        build("resnet", labels=labels), processor(64), preset="tiny"
    )
    explainer.save_pretrained(folder, include_classifier=True)
    return str(folder)


def write_picture(path, index, size=None):
    image = PIL.Image.fromarray(draw_scene(7, index, 96).image)
    (image.resize(size) if size else image).save(path)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    """A PNG that says it is that large, without any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def write_bomb(path):
    """400 million black pixels in a file of 400 kB."""
    side = 20_000
    packer = zlib.compressobj(9)
    line = b"\0" + bytes(side // 8)
    data = [packer.compress(line) for _ in range(side)] + [packer.flush()]
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def write_truncated(path):
    buffer = io.BytesIO()
    PIL.Image.fromarray(draw_scene(7, 0, 96).image).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def write_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("inside.txt", "no picture")


def write_tiff(path):
    PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, "TIFF")


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
HTML = "<!doctype html><script>alert(1)</script>"

CASES = [  # name of the upload, how it is made, what is said
    ("bomb.png", write_bomb, "'bomb.png' claims .* pixels"),
    ("header.png", lambda path: path.write_bytes(png_header(50_000, 50_000)), "'header.png' claims .* pixels"),
    ("drawing.svg", lambda path: path.write_text(SVG), "'drawing.svg' is not named like a picture"),
    ("drawing.png", lambda path: path.write_text(SVG), "'drawing.png' is not a picture that can be read"),
    ("page.html", lambda path: path.write_text(HTML), "'page.html' is not named like a picture"),
    ("page.jpg", lambda path: path.write_text(HTML), "'page.jpg' is not a picture that can be read"),
    ("archive.png", write_zip, "'archive.png' is not a picture that can be read"),
    ("scan.png", write_tiff, "'scan.png' is not a picture that can be read"),  # a decoder that is not needed
    ("half.png", write_truncated, "'half.png' cannot be read as a picture"),
    ("empty.png", lambda path: path.write_bytes(b""), "'empty.png' is not a picture that can be read"),
    ("program.exe", lambda path: path.write_bytes(b"MZ" + bytes(100)), "'program.exe' is not named like a picture"),
]
