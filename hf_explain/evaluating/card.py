"""Measured numbers in an explainer's card: for the Hub's widgets as `model-index`, for people as a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..jobs.folders import write_whole
from ..modeling.errors import ExplainerError
from ..modeling.frozen_models import fingerprint_of
from ..modeling.model_card import in_markdown, model_card
from ..reports.tables import as_markdown
from .report import make_tables
from .survey import Settings

SECTION = "## Faithfulness"


def write_card(folder: Path, results: dict, explainer) -> None:
    """Puts the results of `hf-explain evaluate` into README.md of an explainer's folder, if they are of its weights."""
    settings, name = Settings(**results["settings"]), check_results(results, explainer, folder)
    path = folder / "README.md"
    included = (folder / "classifier").is_dir()
    card = ModelCard.load(path) if path.exists() else ModelCard(model_card(explainer, folder.name, included))
    data: Any = card.data
    data.model_name = data.model_name or folder.resolve().name
    others = [one for one in data.eval_results or [] if (one.task_type, one.dataset_type) != (TASK, name_of(settings))]
    data.eval_results = [*others, *eval_results(results, settings, name)]
    card.text = with_section(card.text, section(results, settings))
    write_whole(path, str(card).encode())


def check_results(results: dict, explainer, folder: Path) -> str:
    """Which method of the results is the explainer in `folder`; refuses results of other weights."""
    measured, here = (results["settings"]["explainer"] or {}).get("weights"), fingerprint_of(explainer.head)
    if measured != here:
        raise ExplainerError(
            f"the results are of an explainer with fingerprint {str(measured)[:12]}, but {folder} holds "
            f"{here[:12]}; measure this one."
        )
    name = next((one for one in ("learned", "refined") if one in results["methods"]), None)
    if name is None:
        raise ExplainerError("the results hold no map of the explainer; measure with --methods learned,...")
    return name


TASK = "image-attribution"


def name_of(settings: Settings) -> str:
    return str(settings.dataset["name"])


def eval_results(results: dict, settings: Settings, name: str) -> list[EvalResult]:
    """One per measured number of the explainer's maps."""
    found, protocols = [], settings.read_protocols()
    for key, value in results["methods"][name]["values"].items():
        protocol_name, _, curve = key.rpartition("/")
        protocol = protocols[protocol_name].describe() if protocol_name in protocols else {}
        found.append(
            EvalResult(
                task_type=TASK,
                task_name="Image attribution",
                dataset_type=name_of(settings),
                dataset_name=name_of(settings),
                dataset_config=settings.dataset.get("dataset_config"),
                dataset_split=settings.dataset.get("split"),
                metric_type=curve or key,
                metric_name=f"{curve or key} ({protocol_name})" if protocol_name else key.replace("_", " "),
                metric_value=round(value["mean"], 4),
                metric_args={
                    "low": round(value["low"], 4), "high": round(value["high"], 4), "pictures": settings.pictures,
                    "seed": settings.seed, "fingerprint": (settings.explainer or {}).get("weights"), **protocol,
                },
            )
        )  # fmt: skip
    return found


def section(results: dict, settings: Settings) -> str:
    tables = "\n\n".join(as_markdown(table) for table in make_tables(results, settings))
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"{SECTION}\n\nMeasured by `hf-explain evaluate` on {settings.pictures} pictures of "
        f"{in_markdown(settings.dataset['name'])}, in brackets 95 % intervals over the pictures; the class explained "
        f"is the {'true' if settings.explained == 'label' else 'predicted'} one ({versions}).\n\n{tables}\n"
    )


def with_section(text: str, new: str) -> str:
    """The card with the section of the same heading replaced, or with one more."""
    found = re.search(rf"^{re.escape(new.splitlines()[0])}\n.*?(?=^## |\Z)", text, flags=re.M | re.S)
    if found:
        return text[: found.start()] + new + "\n" + text[found.end() :]
    return text.rstrip() + "\n\n" + new
