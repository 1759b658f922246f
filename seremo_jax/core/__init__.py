"""What every room may import: words, records, settings, the member axis, the mesh, artefacts, progress.

In: nothing of ours. Out: the frozen records that rooms hand to each other (`schema`), classes and attributes by name
(`vocab`), strict settings (`config`), atomic files with hashes (`artefacts`). A helper comes here from its first user's
room once a second room needs it. Only `mesh` and `preemption` import JAX.
"""
