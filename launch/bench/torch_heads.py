"""The PyTorch side of training: the same head, losses and optimiser, written as well as we can."""

import multiprocessing
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

if TYPE_CHECKING:  # processes of PyTorch's heads would spend seconds on importing JAX and our engine
    from launch.bench.engine import Ready

CONVOLUTIONS = ("Conv1d", "shifted")
_NUM_FIRST = 3


class Head(nn.Module):
    """TC-GRU over padded rows, time first.

    Args:
      num_features: D.
      sizes: Fields of the config section `model` that are not the published ones.
      convolution: `Conv1d` (one group a feature) or `shifted` (multiply-adds of shifted copies).
      num_attributes: A.
      num_classes: C.
    """

    def __init__(
        self,
        num_features: int,
        sizes: dict[str, Any],
        convolution: str,
        num_attributes: int = 3,
        num_classes: int = 8,
    ):
        super().__init__()
        units, embedding = sizes.get("gru_units", 256), sizes.get("embedding_size", 128)
        self.convolution = convolution
        self.conv = nn.Conv1d(num_features, num_features, 3, padding=1, groups=num_features)
        self.gru = nn.GRU(2 * num_features, units, 2)
        self.embedding = nn.Linear(units, embedding)
        self.attribute_head = nn.Linear(embedding, num_attributes)
        self.class_head = nn.Linear(embedding, num_classes)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, is_packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Attributes [B, A] and class distribution [B, C] from frames [T, B, D], zero beyond `lengths`."""
        is_same_length = bool((lengths == x.shape[0]).all())
        if self.convolution == "Conv1d":
            u = self.conv(x.permute(1, 2, 0)).permute(2, 0, 1)
        else:
            w, padded = self.conv.weight[:, 0], nn.functional.pad(x, (0, 0, 0, 0, 1, 1))
            u = torch.addcmul(self.conv.bias, padded[:-2], w[:, 0])
            u = torch.addcmul(torch.addcmul(u, x, w[:, 1]), padded[2:], w[:, 2])
        u = torch.relu(u)
        if is_packed and not is_same_length:
            packed = pack_padded_sequence(torch.cat([u, x], -1), lengths, enforce_sorted=False)
            last = self.gru(packed)[1][-1]
        else:
            states = self.gru(torch.cat([u, x], -1))[0]
            last = states[-1] if is_same_length else states[lengths.to(x.device) - 1, torch.arange(x.shape[1])]
        embedding = self.embedding(last)
        return self.attribute_head(embedding), torch.softmax(self.class_head(embedding), -1)

    def load(self, params: dict[str, Any]) -> None:
        """Takes the parameters of one of our members."""
        conv, tensor = params["conv"], torch.from_numpy
        values = {"conv.weight": conv["w"].T[:, None], "conv.bias": conv["b"]}
        for depth, layer in params["grus"].items():
            names = {"w_i": "weight_ih", "w_h": "weight_hh", "b_i": "bias_ih", "b_h": "bias_hh"}
            values |= {f"gru.{theirs}_l{depth}": layer[ours].T for ours, theirs in names.items()}
        for name in ("embedding", "attribute_head", "class_head"):
            values |= {f"{name}.weight": params[name]["w"].T, f"{name}.bias": params[name]["b"]}
        self.load_state_dict({name: tensor(np.array(value, order="C")) for name, value in values.items()})


def ccc(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Concordance correlation of each column."""
    mean_pred, mean_target = pred.mean(0), target.mean(0)
    d_pred, d_target = pred - mean_pred, target - mean_target
    spread = (d_pred**2).mean(0) + (d_target**2).mean(0) + (mean_pred - mean_target) ** 2 + 1e-8
    return 2 * (d_pred * d_target).mean(0) / spread


class Rows(NamedTuple):
    """A batch of padded rows as tensors.

    Attributes:
      features: [T, B, D] frames, zero beyond each length.
      lengths: [B] frames of each utterance, on the host.
      attributes: [B, A] targets.
      distribution: [B, C] targets.
    """

    features: torch.Tensor
    lengths: torch.Tensor
    attributes: torch.Tensor
    distribution: torch.Tensor

    @classmethod
    def of(cls, batch: "Ready", slot: int = 0, device: str = "cpu") -> "Rows":
        """One layer of one of our batches, which has an utterance a row; cut to its longest."""
        lengths = torch.from_numpy(np.asarray(batch.is_valid).sum(0))
        features = np.asarray(batch.features)[slot, : int(lengths.max())]
        features, attributes, distribution = (
            torch.from_numpy(np.array(value, np.float32)).to(device)
            for value in (features, batch.attributes, batch.distribution)
        )
        return cls(features, lengths, attributes, distribution)


class Trainer:
    """Heads trained one after another.

    Args:
      num_heads: How many.
      num_features: D.
      sizes: See `Head`.
      convolution: See `Head`.
      is_packed: Packed sequences instead of padded rows, where lengths differ.
      device: `cpu` or `cuda`.
    """

    def __init__(
        self,
        num_heads: int,
        num_features: int,
        sizes: dict[str, Any] | None = None,
        convolution: str = "shifted",
        is_packed: bool = False,
        device: str = "cpu",
    ):
        torch.manual_seed(0)
        self._is_packed = is_packed
        self.heads = [Head(num_features, sizes or {}, convolution).to(device) for _ in range(num_heads)]
        self._optimisers = [torch.optim.Adam(head.parameters(), 5e-4, fused=True) for head in self.heads]

    def step(self, batches: Sequence[Rows]) -> list[float]:
        """One update of every head; head i reads `batches[i % len(batches)]`. The loss of each."""
        losses = []
        for number, (head, optimiser) in enumerate(zip(self.heads, self._optimisers, strict=True)):
            rows = batches[number % len(batches)]
            optimiser.zero_grad(set_to_none=True)
            attributes, distribution = head(rows.features, rows.lengths, self._is_packed)
            loss = 2 - ccc(attributes, rows.attributes).mean() - ccc(distribution, rows.distribution).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.detach())
        return [float(loss) for loss in losses]


def faster_convolution(rows: Rows, sizes: dict[str, Any], device: str = "cpu") -> tuple[str, dict[str, float]]:
    """The faster form of the convolution in this very step, and the seconds of each."""
    seconds = {}
    for form in CONVOLUTIONS:
        trainer = Trainer(1, rows.features.shape[-1], sizes, form, device=device)
        trainer.step([rows])
        times = []
        for _ in range(_NUM_FIRST):
            start = time.perf_counter()
            trainer.step([rows])
            times.append(time.perf_counter() - start)
        seconds[form] = min(times)
    return min(seconds, key=seconds.get), seconds


class Processes:
    """Heads shared out to processes of one thread each, which train at the same time.

    Args:
      num_heads: How many in all.
      num_processes: How many processes.
      batches: What they train on, see `Trainer.step`.
      sizes: See `Head`.
      convolution: See `Head`.
    """

    def __init__(
        self, num_heads: int, num_processes: int, batches: Sequence[Rows], sizes: dict[str, Any], convolution: str
    ):
        context = multiprocessing.get_context("spawn")
        arrays = [tuple(tensor.numpy() for tensor in rows) for rows in batches]
        self._pipes, self._processes = [], []
        for number in range(num_processes):
            share = num_heads // num_processes + (number < num_heads % num_processes)
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, share, arrays, sizes, convolution), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes' numbers."""
        return tuple(process.pid for process in self._processes)

    def step(self) -> None:
        """One update of every head."""
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()

    def close(self) -> None:
        """Ends the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()


def _serve(
    pipe: Any, num_heads: int, arrays: list[tuple[np.ndarray, ...]], sizes: dict[str, Any], convolution: str
) -> None:
    torch.set_num_threads(1)
    batches = [Rows(*map(torch.from_numpy, batch)) for batch in arrays]
    trainer = Trainer(num_heads, arrays[0][0].shape[-1], sizes, convolution)
    pipe.send(True)
    while pipe.recv():
        trainer.step(batches)
        pipe.send(True)
