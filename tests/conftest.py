"""Eight simulated devices and quick compilation, set before jax starts."""

import os

os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
).strip()
os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS', 'cpu')
os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'  # the user's own is no business of the tests
# Most tests compile much and run it once: without optimizations that takes half the time.
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
