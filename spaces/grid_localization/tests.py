"""Cases with scores that can be worked out by hand."""

import torch

left = torch.zeros(1, 4, 4)
left[:, :, :2] = 1.0  # cells 0 and 2 of 2 x 2, in equal parts
corner = torch.arange(16.0).view(1, 4, 4)  # the last pixel is the most important one, in cell 3 or in the last row
signed = torch.tensor([[[3.0, -9.0], [1.0, 0.0]]])  # what is negative does not count

test_cases = [
    {"attributions": left, "targets": [0], "result": {"localization": 0.5, "empty": 0}},
    {"attributions": left, "targets": [1], "result": {"localization": 0.0, "pointing_game": 0.0}},
    {"attributions": left, "targets": [7], "labels": [[5, 6, 7, 8]], "result": {"localization": 0.5}},
    {"attributions": corner, "targets": [3], "result": {"localization": 0.4166667, "pointing_game": 1.0}},
    {"attributions": corner, "targets": [0], "masks": corner > 11, "result": {"average_precision": 1.0}},
    {"attributions": corner, "targets": [15], "n": 4, "result": {"localization": 0.125, "average_precision": 1.0}},
    {"attributions": signed, "targets": [0], "result": {"localization": 0.75}},
    {"attributions": -left, "targets": [0], "result": {"localization": 0.0, "empty": 1}},
]
