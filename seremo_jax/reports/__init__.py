"""Result records to pages, tables and figures.

In: the artefacts of a finished workdir. Out: `report/` with one self-contained page, Markdown, CSV and figures, and the
benchmark tables over several workdirs. Every number shown was computed before: nothing here scores anything, and no
module here imports JAX.
"""
