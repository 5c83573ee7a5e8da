"""Segmentation scores against plain loops."""

import pytest
import torch

from hf_explain import ExplainerError
from hf_explain.localization.segmentation import join, segment


def draw(count=6, side=4):
    random = torch.Generator().manual_seed(0)
    maps = torch.randn(count, side, side, generator=random).mul(2).round().div(2).clamp(-2, 2)  # negative, and ties
    maps[:, 0, 1], maps[:, 2, 0] = 2, -2  # so that stretching is exact, and what is tied stays it
    labels = (torch.rand(count, side, side, generator=random) < 0.4).long()
    labels[:, 0, 0], labels[:, 1, 1], labels[1, 3] = 1, 0, -1
    return maps, labels


def average_precision(scores, wanted):
    """Over falling thresholds: precision times the recall it adds."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [w for s, w in zip(scores, wanted, strict=True) if s >= threshold]
        recall = sum(above) / sum(wanted)
        total, before = total + sum(above) / len(above) * (recall - before), recall
    return total


def f1(found, wanted):
    hits = sum(f and w for f, w in zip(found, wanted, strict=True))
    total = sum(found) + sum(wanted)
    return 2 * hits / total if total else 0.0


def in_loops(maps, labels):
    correct = labeled = 0
    overlap, joined, precisions, scores, row_scores = [0, 0], [0, 0], [], [], []
    for one, label in zip(maps.tolist(), labels.tolist(), strict=True):
        flat = [v for row in one for v in row]
        low, high = min(flat), max(flat)
        stretched = [[(v - low) / (high - low) for v in row] for row in one]
        mean = sum(v for row in stretched for v in row) / len(flat)
        stacked, all_found, all_wanted, rows = [], [], [], []
        for values, classes in zip(stretched, label, strict=True):
            found = [v > mean and c >= 0 for v, c in zip(values, classes, strict=True)]
            rows.append(f1(found, [c == 1 for c in classes]))
            for v, c, f in zip(values, classes, found, strict=True):
                if c < 0:
                    continue
                labeled += 1
                correct += f == (c == 1)
                for side in (0, 1):
                    overlap[side] += f == side and c == side
                    joined[side] += f == side or c == side
                stacked += [(1 - v, c == 0), (v, c == 1)]
                all_found.append(f)
                all_wanted.append(c == 1)
        precisions.append(average_precision(*zip(*stacked, strict=True)))
        scores.append(f1(all_found, all_wanted))
        row_scores.append(sum(rows) / len(rows))
    count = len(maps)
    return {
        "pixel_accuracy": correct / labeled,
        "mean_iou": sum(a / b for a, b in zip(overlap, joined, strict=True)) / 2,
        "mean_average_precision": sum(precisions) / count,
        "f1": sum(scores) / count,
        "row_f1": sum(row_scores) / count,
    }


def test_it_is_the_protocol_in_plain_loops():
    maps, labels = draw()
    found = segment(maps, labels).mean()
    assert found == pytest.approx(in_loops(maps, labels), abs=1e-6)
    assert abs(found["f1"] - found["row_f1"]) > 1e-3


@pytest.mark.parametrize("batch_size", [1, 3, 6, 4])
def test_batches_do_not_matter(batch_size):
    maps, labels = draw()
    pairs = zip(maps.split(batch_size), labels.split(batch_size), strict=True)
    assert join([segment(*pair) for pair in pairs]).mean() == segment(maps, labels).mean()


def test_the_object_itself_and_its_opposite():
    _, labels = draw()
    labels = labels.clamp(min=0)
    assert segment(labels.float(), labels).mean() == {
        "pixel_accuracy": 1.0, "mean_iou": 1.0, "mean_average_precision": 1.0, "f1": 1.0,
        "row_f1": pytest.approx(float((labels == 1).any(2).float().mean())),
    }  # fmt: skip
    worst = segment(-labels.float(), labels).mean()
    assert worst["pixel_accuracy"] == worst["mean_iou"] == worst["f1"] == worst["row_f1"] == 0


@pytest.mark.parametrize("scale", [4.0, 0.25])
def test_only_the_shape_of_a_map_counts(scale):
    maps, labels = draw()
    assert segment(maps * scale, labels).mean() == pytest.approx(segment(maps, labels).mean(), abs=1e-6)


def test_wrong_input():
    maps, labels = draw()
    for change, message in (
        ((maps[:, :2], labels), "give \\(B, H, W\\) of one shape each"),
        ((torch.cat([maps[:5], torch.ones(1, 4, 4)]), labels), "image 5 is constant"),
        ((torch.cat([maps[:5], torch.full((1, 4, 4), torch.nan)]), labels), "image 5 holds NaN"),
        ((maps, labels * 255), "the labels of image 0 are .*255"),
        ((maps, torch.full_like(labels, -1)), "the labels of image 0 are \\[-1\\]"),
    ):
        with pytest.raises(ExplainerError, match=message):
            segment(*change)
