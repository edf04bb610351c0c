"""One tiny model of each kind, with what sets it apart."""

from typing import Any

from vitjax.models import CaiT, ConvNet, PatchConvNet, ViT

SHAPE: dict[str, Any] = {'patch_size': 4, 'width': 8, 'num_heads': 2, 'num_classes': 5}
SHAPE |= {'layer_scale': 0.5}
VIT = ViT(**SHAPE, depth=3, registers=1)
CURRENT = ViT(  # parts of DINOv3, EVA-02 and AIMv2, which no model has together
    **SHAPE, depth=3, registers=2, rope='dinov3', position='none', norm='rms', mlp='swiglu',
    mlp_norm=True, qk_norm=True, key_bias=False, pool='mean', fc_norm=False, pre_norm=True,
    spare_class_token=True,
)  # fmt: skip
POOLED = ViT(  # SigLIP's, with learned frequencies
    **SHAPE, depth=2, pool='map', mlp='gelu_tanh', rope='mixed', registers=1,
    prefix_positions='all', patch_norm=True, bias=False,
)  # fmt: skip
CAIT = CaiT(**SHAPE, depth=3, class_depth=2)
PATCHCONVNET = PatchConvNet(**SHAPE, depth=3)
MULTI = PATCHCONVNET.clone(class_tokens_per_class=True)
CONVNET = ConvNet(widths=(4, 6), hidden=7, num_classes=5)
