"""Trained heads to result records: every number with its protocol and its interval over speakers.

In: predictions of whole splits, targets, speakers and groups. Out: `predictions/*.parquet`, `calibration.json` and
`results.jsonl`, whose records hold values, intervals, tests and the protocol card. All scores come from sums by speaker
that add up; nothing is averaged over batches.
"""
