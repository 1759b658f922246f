"""One pass over the audio: waveforms, clean or in a condition, through the backbone into the store.

In: the tables, the recordings, a backbone. Out: the store (frames of every layer wanted, a manifest with hashes), and
the sums from which every layer is ranked. `store` is the only module that knows the file format, `forward` the only one
that compiles the backbone.
"""
