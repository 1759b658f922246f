"""Result records to pages, tables and figures.

In: the artefacts of a finished workdir. Out: `report/` with one self-contained page, Markdown, CSV and figures, and the
benchmark tables over several workdirs. Nothing here scores a prediction; differences, ranges and ranks of
recorded numbers are taken here. No module here imports JAX.
"""
