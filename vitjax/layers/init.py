"""Initial values of parameters, as the reference implementations have them."""

import flax.linen as nn

kernel_init = nn.initializers.truncated_normal(0.02)  # timm's and DeiT's for every dense layer
conv_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')  # PyTorch's default
