"""One pass over the audio: waveforms, clean or in a condition, through the backbone into the store.

In: the tables, the recordings, a backbone. Out: the store (frames of the layers wanted, a manifest with hashes), and
the sums from which every layer is ranked. Only `store` knows the file format. Only `forward` plans batches and compiles
the backbone; `extract` and `condition_frames` call it.
"""
