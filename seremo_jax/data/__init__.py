"""Files of a corpus to tables, splits, votes, targets and waveforms.

In: label files and recordings as their owners publish them (`corpora`, one parser each). Out: a table of utterances and
one of ratings (`tables`), speaker-disjoint splits, and, for settings of today, targets as arrays (`targets`). Policies
are applied when targets are built, never when tables are written. No module here imports JAX.
"""
