"""The photographs: which there are, by name in Python and on the command line."""

import PIL.Image
import pytest

from hf_explain import ExplainerError
from hf_explain.photos import PICTURES, examples, packages, pictures


def test_they_are_color_photographs_from_an_installed_package():
    found = examples()
    assert list(found) == list(PICTURES) == ["astronaut", "cat", "coffee", "rocket"]
    for name, image in found.items():
        assert image.mode == "RGB" and min(image.size) >= 300, name
        assert PIL.Image.open(pictures.picture_file(f"photos:{name}")).size == image.size
    assert len(pictures.picture_files()) == 4


def test_other_names_are_left_alone():
    assert [pictures.picture_file(name) for name in ("dog.jpg", "https://a/b.png")] == ["dog.jpg", "https://a/b.png"]


def test_a_name_that_is_not_known():
    with pytest.raises(ExplainerError, match=r"^unknown photograph 'photos:dog'; did you mean .photos:cat.\?"):
        pictures.picture_file("photos:dog")


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExplainerError, match=r"^photos:cat needs the extra photos, and skimage is not inst"):
        pictures.picture_file("photos:cat")
    assert pictures.picture_files() == []
