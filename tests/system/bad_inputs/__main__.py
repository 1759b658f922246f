"""Runs the bad inputs, all or some: `python -m tests.system.bad_inputs [WORD]`; exit code 1 where one is not told."""

import collections
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.system.bad_inputs import OUTCOMES, run
from tests.system.bad_inputs.every import cases


def main(words: list[str]) -> int:
    """Prints a line for each fault and the counts, by kind and in all."""
    asked = [case for case in cases() if all(word in " ".join(case[:3]) for word in words)]
    counts = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="seremo-bad-inputs-") as folder:
        for number, case in enumerate(asked):
            place = Path(folder, str(number))
            place.mkdir()
            outcome, output = run(case, place)
            counts[case.kind, outcome] += 1
            if outcome != "told":
                print(f"{outcome}: {case.kind}, {case.launcher}: {case.name}; {case.word!r} was to be said")
                print(f"{output[-1_500:]}\n", flush=True)
    kinds = list(dict.fromkeys(case.kind for case in asked))
    for kind in kinds:
        print(f"{kind}: {', '.join(f'{counts[kind, outcome]} {outcome}' for outcome in OUTCOMES)}")
    totals = {outcome: sum(counts[kind, outcome] for kind in kinds) for outcome in OUTCOMES}
    print(f"{len(asked)} bad inputs: {', '.join(f'{number} {outcome}' for outcome, number in totals.items())}")
    return int(totals["told"] < len(asked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
