"""ViT, CaiT and PatchConvNet in JAX: train them fast, see what they learnt."""
