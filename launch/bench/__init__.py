"""What `python -m launch.bench` measures: a module for each suite, PyTorch peers, and the clock.

A suite has `parts(session) -> list[Part]` (see `suite`), and may ask for one device for each core with
`USES_A_DEVICE_A_CORE`. Some suites take writers of corpora and small models from `tests.support`, so that the benchmark
runs from a checkout and not from an installed package.
"""
