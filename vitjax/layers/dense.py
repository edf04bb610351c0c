"""The dense layer."""

import flax.linen as nn

# The backward pass casts the kernel to the compute type again instead of keeping a copy. Where
# parameters are split over devices it also gathers each layer's again: kept, the copies would be
# the whole model on every device.
Dense = nn.remat(nn.Dense, prevent_cse=False)
