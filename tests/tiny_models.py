"""One tiny model of each kind, with what sets it apart."""

from typing import Any

from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT

SHAPE: dict[str, Any] = {'patch_size': 4, 'width': 8, 'num_heads': 2, 'num_classes': 5}
SHAPE |= {'layer_scale': 0.5}
VIT = ViT(**SHAPE, depth=3, registers=1)
CAIT = CaiT(**SHAPE, depth=3, class_depth=2)
PATCHCONVNET = PatchConvNet(**SHAPE, depth=3)
MULTI = PATCHCONVNET.clone(class_tokens_per_class=True)
CONVNET = ConvNet(widths=(4, 6), hidden=7, num_classes=5)
