"""Training: one head, a dozen and two beside PyTorch one after another and in two processes, and a whole epoch."""

import gc
from typing import Any

import jax

from launch.bench import engine, torch_peers
from launch.bench.timing import Options, Row, interleave, num_cores, peak_gflops

USES_A_DEVICE_A_CORE = True
NUM_FEATURES, UNITS = 1_024, 256
NUM_FRAMES, BATCHES = 128, (32, 64)
MEMBERS = ((12, 4), (25, 5))
"""(Members, layers that they read)."""
MEMBERS_BATCH, EPOCH_BATCH, EPOCH_BATCHES, EPOCH_UTTERANCES = 32, 64, 3, 2_000
GPU_MEMBERS = ((25, 6.0), (125, 12.0))
"""(Members, times PyTorch in sequence that they should reach)."""


def run(options: Options) -> list[Row]:
    """All rows."""
    if not torch_peers.is_there():
        return [Row("one head, members, epoch", note=torch_peers.NO_PEER)]
    if jax.default_backend() != "cpu":
        return _gpu(options)
    import torch

    # Small steps on several threads crawl where other jobs hold the cores.
    torch.set_num_threads(1 if options.is_quick else num_cores())
    peak = peak_gflops(1 if options.is_quick else 7)
    rows = [Row("peak of XLA's float32 matrix product", {"GFLOP/s": peak})]
    for batch_size in BATCHES:
        rows += _one_head(batch_size, peak, options)
        gc.collect()
    for num_members, num_layers in MEMBERS:
        rows += _members(num_members, num_layers, options)
        gc.collect()
    rows += _epoch(options)
    rows.append(Row("one head against cuDNN, 25 and 125 members, MFU, on a GPU", note="no GPU here: not measured"))
    return rows


def sizes(options: Options) -> tuple[int, dict[str, Any]]:
    """D, and the fields of `model` that are not the published ones."""
    return (24, {"gru_units": 8, "embedding_size": 8}) if options.is_quick else (NUM_FEATURES, {})


def step_flops(num_frames: int, num_features: int, units: int) -> float:
    """Operations of the products a step of one head cannot do without, two a multiply-add.

    Forward, gradients of the weights, and gradients of what has parameters below: not of the features themselves.
    Convolution, gates, embedding and heads are left out.
    """
    of_gates = 2 * num_frames * 3 * units
    forward = of_gates * (2 * num_features + 3 * units)
    return 2 * forward + of_gates * (num_features + 3 * units)


def _fixed(batch_size: int, num_layers: int, options: Options) -> Any:
    """A batch of utterances of one length."""
    num_frames, num_features = 16 if options.is_quick else NUM_FRAMES, sizes(options)[0]
    frames = engine.Frames([num_frames] * batch_size, num_features)
    plan, shape = engine.padded_plan(frames.lengths, batch_size)
    return engine.source(frames, range(num_layers), engine.random_targets(batch_size), plan, shape)[0]


def _one_head(batch_size: int, peak: float, options: Options) -> list[Row]:
    from launch.bench import torch_heads

    num_features, model = sizes(options)
    batch = _fixed(batch_size, 1, options)
    ours = engine.Trainer(1, num_features, sizes=model)
    placed, rows = ours.place(batch), torch_heads.Rows.of(batch)
    form, of_forms = torch_heads.faster_convolution(rows, model)
    peer = torch_heads.Trainer(1, num_features, model, form)
    timed = interleave({"ours s": lambda: ours.step(placed), "PyTorch s": lambda: peer.step([rows])}, options.rounds)
    s, num_frames = timed.seconds, len(batch.is_valid)
    gflop = step_flops(batch_size * num_frames, num_features, model.get("gru_units", UNITS)) / 1e9
    what = f"one head, B = {batch_size}, T = {num_frames}, D = {num_features}"
    forms = {f"PyTorch's convolution as {name} s": seconds for name, seconds in of_forms.items()}
    note = "; ".join(filter(None, (timed.note, f"PyTorch's convolution as {form}")))
    return [
        Row(f"{what}: step", s | forms, s["PyTorch s"] / s["ours s"], 1.1, note),
        Row(f"{what}: share of peak", {"GFLOP": gflop, "GFLOP/s": gflop / s["ours s"], "peak GFLOP/s": peak},
            gflop / s["ours s"] / peak, 0.55, "; ".join(filter(None, (timed.note, "ratio: share of peak")))),
    ]  # fmt: skip


def _members(num_members: int, num_layers: int, options: Options) -> list[Row]:
    from launch.bench import torch_heads

    num_features, model = sizes(options)
    batch = _fixed(4 if options.is_quick else MEMBERS_BATCH, num_layers, options)
    ours = engine.Trainer(num_members, num_features, num_layers, model)
    placed = ours.place(batch)
    rows = [torch_heads.Rows.of(batch, slot) for slot in range(num_layers)]
    form = torch_heads.faster_convolution(rows[0], model)[0]
    peer = torch_heads.Trainer(num_members, num_features, model, form)
    processes = torch_heads.Processes(num_members, num_cores(), rows, model, form)
    names = ("ours s", "PyTorch in sequence s", "PyTorch in processes s")
    cases = (lambda: ours.step(placed), lambda: peer.step(rows), processes.step)
    try:
        timed = interleave(dict(zip(names, cases, strict=True)), options.rounds, processes.pids)
    finally:
        processes.close()
    s, batch_size = timed.seconds, batch.is_used.size
    what = f"{num_members} members on {num_layers} layers, B = {batch_size}, T = {len(batch.is_valid)}: step"
    note = "; ".join(filter(None, (timed.note, f"PyTorch's convolution as {form}")))
    return [
        Row(f"{what}, against PyTorch in sequence, {num_cores()} threads", s, s[names[1]] / s[names[0]], 1.4, note),
        Row(f"{what}, against PyTorch in {num_cores()} processes of one thread", s, s[names[2]] / s[names[0]], 1.05,
            note),
    ]  # fmt: skip


def _epoch(options: Options) -> list[Row]:
    """Whole batches of an epoch: seconds per 1,000 utterances, packed, padded, and PyTorch's both ways."""
    from launch.bench import torch_heads

    num_features, model = sizes(options)
    batch_size = 6 if options.is_quick else EPOCH_BATCH
    lengths = engine.podcast_lengths(60 if options.is_quick else EPOCH_UTTERANCES)
    frames, targets = engine.Frames(lengths, num_features), engine.random_targets(len(lengths))
    packed, packed_shape = engine.packed_plan(lengths, batch_size)
    padded, padded_shape = engine.padded_plan(lengths, batch_size)
    layouts = {"packed": (packed, packed_shape), "padded": (padded, padded_shape)}
    batches = {
        name: [engine.source(frames, (0,), targets, plan[:EPOCH_BATCHES], shape)[i] for i in range(EPOCH_BATCHES)]
        for name, (plan, shape) in layouts.items()
    }
    num = {name: sum(int(batch.is_used.sum()) for batch in of_layout) for name, of_layout in batches.items()}
    trainers = {name: engine.Trainer(1, num_features, sizes=model) for name in layouts}
    placed = {name: [trainers[name].place(batch) for batch in batches[name]] for name in layouts}
    rows = [torch_heads.Rows.of(batch) for batch in batches["padded"]]
    form = torch_heads.faster_convolution(rows[0], model)[0]
    peers = {
        "padded": torch_heads.Trainer(1, num_features, model, form),
        "packed sequences": torch_heads.Trainer(1, num_features, model, form, is_packed=True),
    }
    cases = {f"ours, {name}": lambda name=name: [trainers[name].step(b) for b in placed[name]] for name in layouts}
    cases |= {f"PyTorch, {name}": lambda peer=peer: [peer.step([r]) for r in rows] for name, peer in peers.items()}
    timed = interleave(cases, options.rounds)
    of_layout = {"ours, packed": num["packed"]}
    s = {name: 1_000 * seconds / of_layout.get(name, num["padded"]) for name, seconds in timed.seconds.items()}
    figures = {f"{name}, s per 1,000 utterances": value for name, value in s.items()}
    fill = sum(int(batch.is_valid.sum()) for batch in batches["packed"]) / sum(
        batch.is_valid.size for batch in batches["packed"]
    )
    what = f"epoch over utterances of 1.9-11.9 s, B = {batch_size}"
    about = f"{EPOCH_BATCHES} whole batches, rows {fill:.0%} full; PyTorch pads to the longest of each batch"
    note = "; ".join(filter(None, (timed.note, about)))
    ours_s, best_peer_s = s["ours, packed"], min(s["PyTorch, padded"], s["PyTorch, packed sequences"])
    return [
        Row(f"{what}: packed against padded, both ours", figures, s["ours, padded"] / ours_s, 1.7, note),
        Row(f"{what}: ours packed against PyTorch padded", figures, s["PyTorch, padded"] / ours_s, None, note),
        Row(f"{what}: ours packed against PyTorch's faster way", figures, best_peer_s / ours_s, None, note),
    ]


def _gpu(options: Options) -> list[Row]:
    """One head against cuDNN's GRU, and members against PyTorch in sequence."""
    import torch

    from launch.bench import torch_heads

    if not torch.cuda.is_available():
        return [Row("one head and members on a GPU", note="PyTorch sees no GPU: not measured")]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as XLA does by default
    peak, (num_features, model) = peak_gflops(), sizes(options)
    rows = []
    for num_members, target in ((1, 0.8), *GPU_MEMBERS):
        batch = _fixed(BATCHES[-1], 1, options)
        ours = engine.Trainer(num_members, num_features, sizes=model)
        placed, tensors = ours.place(batch), torch_heads.Rows.of(batch, device="cuda")
        form = torch_heads.faster_convolution(tensors, model, "cuda")[0]
        peer = torch_heads.Trainer(num_members, num_features, model, form, device="cuda")
        # `peer.step` returns the losses as numbers, which waits for the device.
        cases = {"ours s": lambda o=ours, p=placed: o.step(p), "PyTorch s": lambda p=peer, t=tensors: p.step([t])}
        timed = interleave(cases, options.rounds)
        s, num_frames = timed.seconds, batch.is_valid.size
        gflop = num_members * step_flops(num_frames, num_features, model.get("gru_units", UNITS)) / 1e9
        rows.append(
            Row(f"GPU, {num_members} members, B = {BATCHES[-1]}, D = {num_features}: step",
                s | {"MFU": gflop / s["ours s"] / peak}, s["PyTorch s"] / s["ours s"], target, timed.note)
        )  # fmt: skip
        gc.collect()
    rows.append(Row("GPU, idle share of the device", note="needs a profiler: not measured"))
    return rows
