"""To be imported before transformers where a torchvision is installed whose binary part is of another torch.

grad-cam imports torchvision, of which the part in Python will do; transformers does not import beside it without this.
"""

import torch

if not hasattr(torch.ops.torchvision, "nms"):
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for op in ("nms", "qnms"):
        LIBRARY.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
