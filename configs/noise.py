"""Noise and rooms heard in training: heads on clean speech, and heads for which half of it is in noise or a room.

Both kinds of heads are members of one program and hear the same batches, so that their scores are paired. Recordings
heard in training must be others than those of evaluation, and better of other kinds: split your folders by kind first.

Run:    python -m launch.STAGE --config=configs/noise.py:subset24 --config.corpus.root=CREMA-D --workdir=runs/noise
        --config.backbone.name=WHISPER-BASE --config.backbone.window=cut --config.extract.layers='(3,)'
        --config.model.layer=3 --config.ensemble.seeds='(0,1)' --config.extract.noise_dir=HEARD/noise
        --config.extract.rir_dir=HEARD/rooms --config.eval.noise_dir=KEPT/noise --config.eval.rir_dir=KEPT/rooms
        for ingest, extract, train, evaluate; then launch.report --table=conditions --workdirs=runs/noise
Time:   8 minutes for 588 copies and 11 for 4 heads, on 2 cores that a dozen other programs shared
Result: drop of UAR in steady noise at 0 dB of kinds that no head heard: 31 % on clean speech, 13 % with copies (mean of
        2 seeds); class CCC falls from 0.79 to 0.38 and from 0.76 to 0.62. Clean speech costs 0.02 UAR and 0.03 class
        CCC. 5 test speakers of one split, by the code of the commit that added this recipe: RESULTS.md, table (f)
"""

import ml_collections

from configs import small_corpus


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """The recipe on CREMA-D; `subset24` keeps 24 speakers.

    Raises:
      ValueError: Unknown `arg`.
    """
    config = small_corpus.get_config(arg)
    config.extract.conditions = (
        "noise:steady:-5..20db",
        "noise:events:-5..20db",
        "reverb:measured:0.6..1.4s",
        "reverb:measured:0.6..1.4s+noise:steady:0..20db",
        "gain:-20..5db",
    )
    config.ensemble.copy_shares = (0.0, 0.5)
    config.ensemble.class_kinds = ("ccc",)
    config.eval.conditions = (
        *("noise:steady:10db", "noise:steady:0db", "noise:events:0db", "noise:white:0db", "babble:0db"),
        *("reverb:synthetic:0.6s", "reverb:measured:0.6s+noise:steady:10db", "telephone"),
    )
    config.eval.means = ("seeds",)
    return config
