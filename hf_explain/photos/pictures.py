"""Photographs that come with scikit-image and that anybody may use: photos:cat, photos:coffee, ..."""

from __future__ import annotations

import PIL.Image

from ..modeling.errors import ExplainerError, unknown_name
from .packages import file_of

# Those that are in its wheel and that no right of their authors restricts (NOTICE says whose they are): name -> file.
PICTURES = {"astronaut": "astronaut.png", "cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
PREFIX = "photos:"


def picture_file(name: str) -> str:
    """The file of "photos:cat"; any other name as it is.

    >>> picture_file("photos:cat").endswith("chelsea.png"), picture_file("dog.jpg")
    (True, 'dog.jpg')
    """
    if not name.startswith(PREFIX):
        return name
    file = PICTURES.get(name.removeprefix(PREFIX))
    if file is None:
        raise ExplainerError(f"{unknown_name('photograph', name, [PREFIX + known for known in PICTURES])}.")
    return str(file_of("skimage", f"data/{file}", name))


def examples() -> dict[str, PIL.Image.Image]:
    """The photographs by name.

    >>> {name: picture.size for name, picture in examples().items()}
    {'astronaut': (512, 512), 'cat': (451, 300), 'coffee': (600, 400), 'rocket': (640, 427)}
    """
    return {name: PIL.Image.open(picture_file(PREFIX + name)).convert("RGB") for name in PICTURES}


def picture_files() -> list[str]:
    """The files of all; none where the extra is not installed."""
    try:
        return [picture_file(PREFIX + name) for name in PICTURES]
    except ExplainerError:
        return []
