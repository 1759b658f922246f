# %% [markdown]
# # One experiment, step by step
#
# From audio and ratings to scores by speaker, with the Python API. Every cell is one step; the launchers do the same
# from the command line. It opens as a notebook in VS Code and, through jupytext, in Jupyter; as a script:
#
#     python launch/walkthrough.py --root=CREMA-D        (24 speakers; needs the recordings)
#     python launch/walkthrough.py                       (a simulated corpus; needs nothing)
#
# `--small` makes the simulated corpus and the heads tiny. The same command goes on where a run was cut off.

# %% Settings: a config holds everything that changes a number; unknown fields are errors.
"""One experiment step by step with the Python API: percent cells that open as a notebook and run as a script."""

import argparse
import os

import jax
import jax.numpy as jnp
import numpy as np

from seremo_jax import backbones
from seremo_jax.core import ensemble, sharding
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import audio, ingest, policies, roots, tables, targets
from seremo_jax.evaluation import evaluate
from seremo_jax.evaluation import records as result_records
from seremo_jax.features import extract, store
from seremo_jax.predict import predictor
from seremo_jax.saliency import ranking
from seremo_jax.training import train

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--root", default="", help="folder of CREMA-D; without it, a corpus is simulated")
parser.add_argument("--workdir", default="runs/walkthrough", help="folder for every artefact")
parser.add_argument("--small", action="store_true", help="tiny: shows that everything runs")
options, _ = parser.parse_known_args()  # a notebook's kernel has arguments of its own

corpus = {"name": "simulated", "num_speakers": 12 if options.small else 24, "utterances_per_speaker": 6}
if options.root:
    corpus = {"name": "crema_d", "root": options.root}
config = from_config_dict(
    {
        "corpus": corpus,
        "data": {"max_speakers": 24 if options.root else 0},
        "backbone": {"name": "logmel"},  # or microsoft/wavlm-large, or a folder with a published checkpoint
        "extract": {"layers": "all"},
        "saliency": {"targets": "votes"},
        "model": {"gru_units": 16 if options.small else 64},
        "optim": {"learning_rate": 2e-3},
        "train": {"max_epochs": 2 if options.small else 8},
        "ensemble": {"class_targets": ("votes", "consensus"), "seeds": (0, 1)},
        "eval": {"num_resamples": 200, "num_permutations": 200},
    }
)
workdir = options.workdir

# %% [markdown]
# ## Tables
# A corpus becomes two tables: one row an utterance, one row a rating. Speakers of the splits are disjoint. What was
# left out is counted in `ingest.json`.

# %%
ingest.run(config, workdir, is_quiet=True)
utterances, ratings, fingerprint = tables.read_tables(workdir)
splits = utterances["split"].to_numpy(zero_copy_only=False)
print(f"{len(utterances)} utterances, {len(ratings)} ratings")
print({str(split): int((splits == split).sum()) for split in np.unique(splits)})

# %% [markdown]
# ## What raters said of one utterance
# Heads learn the distribution of the votes. The consensus is the plurality; a tie is no agreement. Every label policy
# is a field of the config.

# %%
labels = targets.build(utterances, ratings, policies.target_policies(config))
row = int(np.argmin(labels.distribution.max(axis=1) + 2.0 * ~labels.has_votes))  # the one that raters disagree on most
print(f"{labels.ids[row]}:")
print({name: round(float(share), 2) for name, share in zip(labels.class_names, labels.distribution[row], strict=True)})
index = int(labels.consensus_index[row])
print("consensus:", labels.class_names[index] if index >= 0 else "no agreement")

# %% [markdown]
# ## Hidden states of one utterance
# A backbone is a frozen model from waveforms [B, S] to hidden states [K, B, T, D]: K layers, T frames, D features. It
# is pure; the caller compiles it.

# %%
path = roots.audio_root(config, workdir) / utterances["audio"][row].as_py()
waveform = audio.decode(path).waveform
backbone = backbones.load(config.backbone.name)
hear = jax.jit(lambda backbone, waveforms, num_samples: backbone(waveforms, num_samples))
hidden, num_frames = hear(backbone, jnp.asarray(waveform)[None], jnp.asarray([len(waveform)], jnp.int32))
print(f"{len(waveform) / 16_000:.2f} s -> {hidden.shape} (layers, utterances, frames, features)")

# %% [markdown]
# ## Which layer carries emotion
# One pass over the audio stores frames and gathers the saliency of every layer: the mean absolute correlation of its
# features with the vote shares (`ccs`), the share of their variance that all features explain together (`dccs`), and a
# ridge probe's CCC on held-out speakers.
# (The layers of `logmel` are log-mel bands and their modulation at six time scales.)

# %%
extract.run(config, workdir, is_quiet=True)
ranked = ranking.summarise(workdir, config)
for kind, curve in ranked["curves"].items():
    if curve is not None:
        print(
            f"{kind}:", {layer: round(score, 3) for layer, score in zip(ranked["layers"], curve["score"], strict=True)}
        )
print("layer", ranked["chosen"], "is chosen")

# %% [markdown]
# ## An ensemble in one program
# The members are the product of the axes of `config.ensemble`; here two targets and two seeds. They share one compiled
# step. The best epoch of each is kept by its score on the development split.

# %%
members = ensemble.members(config, ranked["chosen"])
reader = store.Reader(f"{workdir}/store")
mesh = sharding.make_mesh(len(members))
train.train(config, reader, (utterances, ratings), mesh, members=members, workdir=workdir)
print("trained:", ", ".join(ensemble.names(members)))

# %% [markdown]
# ## Scores, with intervals resampled by speaker
# A record holds every score of one system: mean over its seeds, 95 % interval, and the protocol it was made under.

# %%
evaluate.run(config, workdir, is_quiet=True)
records = [record for record in result_records.read(f"{workdir}/results.jsonl") if record.group == "all"]
for record in records:
    uar = record.metrics["UAR"]
    print(
        f"{record.system}: UAR {uar['value']:.3f} [{uar['low']:.3f}, {uar['high']:.3f}], {record.num_speakers} speakers"
    )

# %% [markdown]
# ## Speaker by speaker
# An overall score hides for whom it holds: UAR of every speaker of the test split, worst first.

# %%
for speaker in sorted(records[0].speakers, key=lambda speaker: speaker["uar"][0]):
    print(f"{speaker['speaker']:>8s}  UAR {speaker['uar'][0]:.2f}  of {speaker['num_scored']} utterances")

# %% [markdown]
# ## A wav file
# A trained workdir, or a folder of `launch.export`, scores any recording, of any length and rate.

# %%
model = predictor.load(workdir, members=("*votes*",))
result = model(waveform, 16_000)
print(os.path.basename(path), {name: round(share, 2) for name, share in result.distribution.items()})
print("2-best:", result.ranked[:2])

# %% [markdown]
# Next: `python -m launch.report --config=... --workdir=...` for the page; launch/README.md for conditions, sweeps of
# members, benchmark tables, and your own data.
