"""Training: the pure step, its layouts over devices, and the trainer of an experiment.

The loop over steps is in `vitjax.loop`.
"""
