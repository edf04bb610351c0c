"""Images and labels: sources, order, feeding, augmentation and preprocessing."""
