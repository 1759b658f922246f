"""How the tests compile, against how a user's programs are compiled; see `tests/conftest.py`."""

import os

LOOPS_AS_IN_PRODUCTION: dict[str, bool] = (
    {"xla_cpu_use_fusion_emitters": True} if "xla_cpu_use_fusion_emitters" in os.environ.get("XLA_FLAGS", "") else {}
)
"""`compiler_options` of `jax.jit` for tests of the last bits, which depend on how the compiler writes loops."""
