"""Training: the pure step, its layouts over devices, and the trainer of an experiment."""
