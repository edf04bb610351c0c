"""Commands that prepare data once: CIFAR, ImageNet, photographs made smaller."""
