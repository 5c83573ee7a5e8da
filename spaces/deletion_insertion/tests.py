"""Cases with areas that can be worked out by hand, for a classifier that sees nothing but the left half of a picture.

Its probability of class 1 is how much white is left there. So a white picture that is turned black from the left to the
right falls to 0 on a straight line over the first half of the steps, an area of 1/4, and stays there.
"""

import torch
from transformers import PreTrainedConfig, ViTImageProcessorPil
from transformers.modeling_outputs import ImageClassifierOutput

SIDE = 40


class LeftHalf(torch.nn.Module):
    """Class 1's probability is the brightness of the left half, with white as 1 and black as -1."""

    def __init__(self):
        super().__init__()
        self.config = PreTrainedConfig(num_labels=2)
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, pixel_values, return_dict=True):
        bright = (pixel_values[..., : pixel_values.shape[-1] // 2].mean((1, 2, 3)) + 1) / 2
        bright = bright.clamp(1e-7, 1 - 1e-7)
        return ImageClassifierOutput(logits=torch.stack([(1 - bright).log(), bright.log()], 1) + self.bias)


columns = torch.arange(SIDE).float().repeat(SIDE, 1)[None]
given = {
    "model": LeftHalf(),
    "image_processor": ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}),
    "pixel_values": torch.ones(1, 3, SIDE, SIDE),
    "reference": "black",
}

test_cases = [
    {**given, "attributions": -columns, "result": {"deletion": 0.25, "insertion": 0.75}},  # the left columns first
    {**given, "attributions": columns, "result": {"deletion": 0.75, "insertion": 0.25}},  # last
    {**given, "attributions": columns.mT, "result": {"deletion": 0.5, "insertion": 0.5}},  # row by row
    {**given, "attributions": columns, "targets": 0, "result": {"deletion": 0.25, "insertion": 0.75}},
]
