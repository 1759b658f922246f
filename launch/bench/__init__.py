"""What `launch/bench.py` measures: a module a suite, each with `run(options) -> list[Row]`; PyTorch peers, too."""
