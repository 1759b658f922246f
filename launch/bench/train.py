"""Training: one head, a dozen and two beside PyTorch one after another and in two processes, and a whole epoch."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from configs import every_speaker
from launch.bench import engine, torch_peers
from launch.bench.machine import peak_gflops
from launch.bench.suite import Part, Row, Session
from launch.bench.timing import join
from launch.cores import num_cores

USES_A_DEVICE_A_CORE = True
NUM_FEATURES, UNITS = 1_024, 256
NUM_FRAMES, BATCHES = 128, (32, 64)
MEMBERS = ((12, 4), (25, 5))
"""(Members, layers that they read)."""
MEMBERS_BATCH, EPOCH_BATCH, EPOCH_BATCHES, EPOCH_UTTERANCES = 32, 64, 3, 2_000
HEAVY_ROUNDS = 3
"""Of what takes seconds a round."""
FRONTIER_SHAPE, FRONTIER_SIZES = (16, 64), {"conv_kernel": 0, "gru_units": 32, "gru_layers": 1, "embedding_size": 16}
"""Batch and features of small heads of a frontier over speakers, and their sizes."""
GPU_MEMBERS = ((25, 6.0), (125, 12.0))
"""(Members, times PyTorch in sequence that they should reach)."""


def parts(session: Session) -> list[Part]:
    """All rows."""
    if not torch_peers.is_there():
        name = "one head, members, epoch"
        return [Part((name,), lambda: [Row(name, note=torch_peers.NO_PEER)]), _frontier(session)]
    peak = functools.cache(lambda: peak_gflops(session.is_quick))
    if jax.default_backend() != "cpu":
        return _gpu(peak, session)
    import torch

    # Small steps on several threads crawl where other jobs hold the cores.
    torch.set_num_threads(1 if session.is_quick else num_cores())
    name, gpu = "peak of XLA's float32 matrix product", "one head against cuDNN, 25 and 125 members, MFU, on a GPU"
    # A step is compiled for each part, which is nearly all that small inputs cost: they have one part of each kind.
    number = 1 if session.is_quick else None
    return [
        Part((name,), lambda: [Row(name, {"GFLOP/s": peak()})]),
        *(_one_head(batch_size, peak, session) for batch_size in BATCHES[:number]),
        *(_members(*members, session) for members in MEMBERS[:number]),
        _epoch(session),
        _frontier(session),
        Part((gpu,), lambda: [Row(gpu, note="no GPU here: not measured")]),
    ]


def sizes(session: Session) -> tuple[int, dict[str, Any]]:
    """D, and the fields of `model` that are not the published ones."""
    return (24, {"gru_units": 8, "embedding_size": 8}) if session.is_quick else (NUM_FEATURES, {})


def step_flops(num_frames: int, num_features: int, units: int) -> float:
    """Operations of the products a step of one head cannot do without, two a multiply-add.

    Forward, gradients of the weights, and gradients of what has parameters below: not of the features themselves.
    Convolution, gates, embedding and heads are left out.
    """
    per_input = 2 * num_frames * 3 * units  # of all three gates
    forward = per_input * (2 * num_features + 3 * units)
    return 2 * forward + per_input * (num_features + 3 * units)


def _fixed(batch_size: int, num_layers: int, session: Session) -> Any:
    """A batch of utterances of one length."""
    frames = engine.Frames([_num_frames(session)] * batch_size, sizes(session)[0])
    plan, shape = engine.padded_plan(frames.lengths, batch_size)
    return engine.source(frames, range(num_layers), engine.random_targets(batch_size), plan, shape)[0]


def _num_frames(session: Session) -> int:
    return 16 if session.is_quick else NUM_FRAMES


def _one_head(batch_size: int, peak: Callable[[], float], session: Session) -> Part:
    num_features, model = sizes(session)
    what = f"one head, B = {batch_size}, T = {_num_frames(session)}, D = {num_features}"
    names = (f"{what}: step", f"{what}: share of peak")

    def rows() -> Iterator[Row]:
        from launch.bench import torch_heads

        batch = _fixed(batch_size, 1, session)
        ours = engine.Trainer(1, num_features, sizes=model)
        placed, batches = ours.place(batch), [torch_heads.Rows.of(batch)]
        form, seconds_of = torch_heads.faster_convolution(batches[0], model)
        peer = torch_heads.Trainer(1, num_features, model, form)
        cases = {"ours s": lambda: ours.step(placed), "PyTorch s": lambda: peer.step(batches)}
        timed = session.interleave(names[0], cases)
        s = timed.seconds
        forms = {f"PyTorch's convolution as {name} s": seconds for name, seconds in seconds_of.items()}
        note = join(timed.note, f"PyTorch's convolution as {form}")
        yield Row(names[0], s | forms, s["PyTorch s"] / s["ours s"], 1.1, note)
        gflop = step_flops(batch_size * len(batch.is_valid), num_features, model.get("gru_units", UNITS)) / 1e9
        figures = {"GFLOP": gflop, "GFLOP/s": gflop / s["ours s"], "peak GFLOP/s": peak()}
        yield Row(names[1], figures, gflop / s["ours s"] / peak(), 0.55, join(timed.note, "ratio: share of peak"))

    return Part(names, rows)


def _members(num_members: int, num_layers: int, session: Session) -> Part:
    num_features, model = sizes(session)
    batch_size = 4 if session.is_quick else MEMBERS_BATCH
    what = f"{num_members} members on {num_layers} layers, B = {batch_size}, T = {_num_frames(session)}: step"
    names = (
        f"{what}, against PyTorch in sequence, {num_cores()} threads",
        f"{what}, against PyTorch in {num_cores()} processes of one thread",
    )

    def rows() -> Iterator[Row]:
        from launch.bench import torch_heads

        batch = _fixed(batch_size, num_layers, session)
        ours = engine.Trainer(num_members, num_features, num_layers, model)
        placed = ours.place(batch)
        batches = [torch_heads.Rows.of(batch, slot) for slot in range(num_layers)]
        form = torch_heads.faster_convolution(batches[0], model)[0]
        peer = torch_heads.Trainer(num_members, num_features, model, form)
        processes = torch_heads.Processes(num_members, num_cores(), batches, model, form)
        cases = {
            "ours s": lambda: ours.step(placed),
            "PyTorch in sequence s": lambda: peer.step(batches),
            "PyTorch in processes s": processes.step,
        }
        try:
            timed = session.interleave(names[0], cases, HEAVY_ROUNDS, processes.pids)
        finally:
            processes.close()
        s, note = timed.seconds, join(timed.note, f"PyTorch's convolution as {form}")
        yield Row(names[0], s, s["PyTorch in sequence s"] / s["ours s"], 1.4, note)
        yield Row(names[1], s, s["PyTorch in processes s"] / s["ours s"], 1.05, note)

    return Part(names, rows)


def _frontier(session: Session) -> Part:
    """Heads of unlike objectives, weights, mixup and features: together, and each in a program of its own kind."""
    points = every_speaker.FRONTIER[:: 13 if session.is_quick else 1]
    batch_size, num_features = FRONTIER_SHAPE
    name = f"{len(points)} heads of configs/every_speaker.py, B = {batch_size}, D = {num_features}: step, one program "
    name += f"against {len(points)} single runs"

    def rows() -> Iterator[Row]:
        frames = engine.Frames([_num_frames(session)] * batch_size, num_features)
        plan, shape = engine.padded_plan(frames.lengths, batch_size)
        batch = engine.source(frames, (0,), engine.random_targets(batch_size), plan, shape)[0]
        trainers = [engine.Trainer(len(points), num_features, sizes=FRONTIER_SIZES, points=points)]
        trainers += [engine.Trainer(1, num_features, sizes=FRONTIER_SIZES, points=[point]) for point in points]
        placed, compiled_s = [trainer.place(batch) for trainer in trainers], []
        for trainer, given in zip(trainers, placed, strict=True):
            began_s = time.perf_counter()
            trainer.step(given)
            compiled_s.append(time.perf_counter() - began_s)
        cases = {
            "one program s": lambda: trainers[0].step(placed[0]),
            "single runs s": lambda: [one.step(given) for one, given in zip(trainers[1:], placed[1:], strict=True)],
        }
        timed = session.interleave(name, cases, HEAVY_ROUNDS)
        s = timed.seconds
        # Single runs of one kind share a program in this process; in processes of their own each compiles it.
        figures = {"compiling one program s": compiled_s[0], "compiling a single run s": compiled_s[1]}
        note = join(timed.note, "single runs only do what their own objective asks for")
        yield Row(name, s | figures, s["single runs s"] / s["one program s"], None, note)

    return Part((name,), rows)


def _epoch(session: Session) -> Part:
    """Whole batches of an epoch: seconds per 1,000 utterances, packed, padded, and PyTorch's both ways."""
    batch_size = 6 if session.is_quick else EPOCH_BATCH
    what = f"epoch over utterances of 1.9-11.9 s, B = {batch_size}"
    names = (
        f"{what}: packed against padded, both ours",
        f"{what}: ours packed against PyTorch padded",
        f"{what}: ours packed against PyTorch's faster way",
    )

    def rows() -> Iterator[Row]:
        figures, note = _epoch_figures(names[0], batch_size, session)
        ours_s, padded_s, peer_padded_s, peer_packed_s = figures.values()
        yield Row(names[0], figures, padded_s / ours_s, 1.7, note)
        yield Row(names[1], figures, peer_padded_s / ours_s, None, note)
        yield Row(names[2], figures, min(peer_padded_s, peer_packed_s) / ours_s, None, note)

    return Part(names, rows)


def _epoch_figures(name: str, batch_size: int, session: Session) -> tuple[dict[str, float], str]:
    """Seconds per 1,000 utterances of ours packed and padded and of PyTorch padded and packed, and what to note."""
    from launch.bench import torch_heads

    num_features, model = sizes(session)
    lengths = engine.podcast_lengths(60 if session.is_quick else EPOCH_UTTERANCES)
    frames, targets = engine.Frames(lengths, num_features), engine.random_targets(len(lengths))
    plans = {"packed": engine.packed_plan(lengths, batch_size), "padded": engine.padded_plan(lengths, batch_size)}
    batches = {
        layout: [engine.source(frames, (0,), targets, plan[:EPOCH_BATCHES], shape)[i] for i in range(EPOCH_BATCHES)]
        for layout, (plan, shape) in plans.items()
    }
    trainers = {layout: engine.Trainer(1, num_features, sizes=model) for layout in plans}
    placed = {layout: [trainers[layout].place(batch) for batch in batches[layout]] for layout in plans}
    padded = [torch_heads.Rows.of(batch) for batch in batches["padded"]]
    form = torch_heads.faster_convolution(padded[0], model)[0]
    peers = {
        "padded": torch_heads.Trainer(1, num_features, model, form),
        "packed sequences": torch_heads.Trainer(1, num_features, model, form, is_packed=True),
    }
    cases = {f"ours, {layout}": lambda key=layout: [trainers[key].step(b) for b in placed[key]] for layout in plans}
    cases |= {f"PyTorch, {form}": lambda peer=peer: [peer.step([r]) for r in padded] for form, peer in peers.items()}
    timed = session.interleave(name, cases, HEAVY_ROUNDS)
    # Whole batches only: packed and padded ones do not hold the same number of utterances.
    num = {layout: sum(int(batch.is_used.sum()) for batch in some) for layout, some in batches.items()}
    figures = {}
    for case, seconds in timed.seconds.items():
        num_utterances = num["packed" if case == "ours, packed" else "padded"]
        figures[f"{case}, s per 1,000 utterances"] = 1_000 * seconds / num_utterances
    is_valid = [batch.is_valid for batch in batches["packed"]]
    fill = sum(int(valid.sum()) for valid in is_valid) / sum(valid.size for valid in is_valid)
    about = f"{EPOCH_BATCHES} whole batches, rows {fill:.0%} full; PyTorch pads to the longest of each batch"
    return figures, join(timed.note, about)


def _gpu(peak: Callable[[], float], session: Session) -> list[Part]:
    """One head against cuDNN's GRU, and members against PyTorch in sequence."""
    import torch

    if not torch.cuda.is_available():
        name = "one head and members on a GPU"
        return [Part((name,), lambda: [Row(name, note="PyTorch sees no GPU: not measured")])]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as XLA does by default
    idle = "GPU, idle share of the device"
    wanted = [_on_gpu(*members, peak, session) for members in ((1, 0.8), *GPU_MEMBERS)]
    return [*wanted, Part((idle,), lambda: [Row(idle, note="needs a profiler: not measured")])]


def _on_gpu(num_members: int, target: float, peak: Callable[[], float], session: Session) -> Part:
    num_features, model = sizes(session)
    name = f"GPU, {num_members} members, B = {BATCHES[-1]}, D = {num_features}: step"

    def rows() -> Iterator[Row]:
        from launch.bench import torch_heads

        batch = _fixed(BATCHES[-1], 1, session)
        ours = engine.Trainer(num_members, num_features, sizes=model)
        placed, tensors = ours.place(batch), torch_heads.Rows.of(batch, device="cuda")
        form = torch_heads.faster_convolution(tensors, model, "cuda")[0]
        peer = torch_heads.Trainer(num_members, num_features, model, form, device="cuda")
        # `peer.step` returns the losses as numbers, which waits for the device.
        cases = {"ours s": lambda: ours.step(placed), "PyTorch s": lambda: peer.step([tensors])}
        timed = session.interleave(name, cases)
        s, num_frames = timed.seconds, batch.is_valid.size
        gflop = num_members * step_flops(num_frames, num_features, model.get("gru_units", UNITS)) / 1e9
        figures = s | {"MFU": gflop / s["ours s"] / peak()}
        yield Row(name, figures, s["PyTorch s"] / s["ours s"], target, timed.note)

    return Part((name,), rows)
