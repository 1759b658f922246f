"""Statistics of plain arrays: mergeable states, resampling, intervals, paired tests, calibration.

In: arrays with their masks and the unit (speaker) of each row. Out: states that merge without loss, scores computed
from merged states, intervals and tests by unit. Nothing here knows of a corpus, a model or a file, so that every
function can be held against independent code. Imports nothing of ours.
"""
