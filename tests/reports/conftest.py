"""Made-up results with their pictures."""

import pytest
from report_cases import REFERENCES, compared, made_up_method


@pytest.fixture
def made_up_results():
    """Numbers nobody measured: invented to try the report."""
    methods = {
        "learned": made_up_method("learned explainer", 1.24, 0.121, 0.951, 0.93),
        "learned_refined": made_up_method("learned, refined 8 steps", 9.8, 0.072, 0.957, 0.94),
        "integrated_gradients": made_up_method("integrated gradients", 31.5, 0.124, 0.921, 0.88),
        "gradient": made_up_method("gradient", 2.1, 0.242, 0.863, 0.71),
        "occlusion": made_up_method("occlusion", 88.0, 0.213, 0.934, 0.86),
        "random": made_up_method("random", 0.1, 0.552, 0.561, 0.19),
        "exact_mask": made_up_method("exact mask", None, 0.164, 0.934, 1.0),
    }
    comparisons = []
    for against in ("random", "gradient", "occlusion"):
        comparisons += compared("learned", against, 0.1)
    comparisons += compared("learned", "integrated_gradients", 0.003, curves=["deletion"])
    comparisons += compared("learned", "integrated_gradients", 0.03, curves=["insertion"])
    comparisons += compared("learned", "learned_refined", -0.04)
    protocol = {"name": "aha", "budgets": 21, "score": "probability", "seed": 0, "pictures": 100, "size": [64, 64]}
    accuracies = (0.963, 0.958, 0.951, 0.944, 0.932, 0.915, 0.884, 0.831, 0.742, 0.561)
    return {
        "command": "hf-explain demo --backbone vit --seed 0",
        "backbone": "vit",
        "size": 64,
        "seed": 0,
        "device": "CPU, 2 threads",
        "versions": {"hf-explain": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "minutes": 3.2,
        "seconds": {"classifier": 80.1, "explainer": 64.0, "measuring": 47.7},
        "data": {
            "train": {"seed": 0, "pictures": 8000},
            "tune": {"seed": 1, "pictures": 50},
            "report": {"seed": 10000, "pictures": 100},
            "classes": [f"{p} {d} stripes" for p in ("fine", "coarse") for d in ("vertical", "rising", "falling")],
        },
        "classifier": {
            "parameters": 701384,
            "accuracy": 0.963,
            "accuracy_when_masked": {f"{i / 10}": accuracy for i, accuracy in enumerate(accuracies)},
        },
        "explainer": {
            "parameters": 91345,
            "preset": "small",
            "steps": 300,
            "objective": {"method": "soft_topk", "temperature": 0.1, "budgets": [0.05, 0.2, 0.5]},
            "references": ["black", "mean", "blur"],
        },
        "protocol": {name: {**protocol, "reference": name} for name in REFERENCES},
        "unseen": ["noise"],
        "methods": methods,
        "comparisons": comparisons,
        "cases": [
            {
                "kind": "success",
                "label": "fine rising stripes",
                "deletion": 0.041,
                "insertion": 0.982,
                "text": "Both blobs of the class come first, the larger one before the smaller one.",
                "image": 12,
            },
            {
                "kind": "failure",
                "label": "coarse flat stripes",
                "deletion": 0.388,
                "insertion": 0.731,
                "text": "The map ranks a blob of another class among the first pixels, so the evidence goes late.",
                "image": 57,
            },
        ],
    }
