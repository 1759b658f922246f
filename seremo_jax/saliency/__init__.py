"""Which layer of a backbone carries emotion, and which features do.

In: mean features of utterances by layer, and their targets. Out: correlation (`ccs`), multiple correlation (`dccs`) and
ridge probe of every layer from mergeable sums, their curves with intervals over speakers, and the layer chosen.
`correlation`, `decorrelation`, `probe`, `variance_shares` and `uncertainty` are pure functions, `question` reads the
tables, `ranking` reads and writes the files. The pass over the audio that feeds them is in `features`.
"""
