"""Acoustic conditions: an utterance as it would be heard in noise, in a room, over a channel.

In: a waveform, the id of a condition (`core.condition_names`), a seed, folders of noises and room responses. Out: the
waveform in that condition, the same bytes whatever the order, the threads or the process. No module here imports JAX.
"""
