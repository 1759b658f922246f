"""One epoch of a training: feeds and compiled steps for the members that are left, and the state that they change."""

import collections
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from seremo_jax.core import ensemble, sharding, vocab
from seremo_jax.core.config import Config
from seremo_jax.core.goodput import Clock
from seremo_jax.core.preemption import Notice, PreemptedError
from seremo_jax.core.progress import Progress
from seremo_jax.core.schema import Batch
from seremo_jax.training import clusters, predictions, roofline, selection, speakers, steps
from seremo_jax.training.arrangement import arrange, is_worth_compacting
from seremo_jax.training.cache import cache_of
from seremo_jax.training.checkpoint import Position
from seremo_jax.training.dataset import Data
from seremo_jax.training.feed import STEPS_AHEAD, Feed, Placement, rows_of, shape_of
from seremo_jax.training.state import TrainState, values_of
from seremo_jax.training.timing import PHASES, StepTrace


class Loop:
    """The members of a training with their state, and the feeds and steps that change it.

    Args:
      config: The experiment.
      data: The data that the members read.
      members: The members.
      mesh: Mesh with the axes `("member", "data")`.
      is_cached: Frames live in device memory; see `fitting.keeps_frames`.
      clock: Counts the wall time of each phase.
      trace: Traces some steps; None traces none.

    Attributes:
      config: The experiment.
      members: The members.
      clock: Counts the wall time of each phase.
      settings: Static settings of the steps.
      is_active: [E] bool, members that have not stopped.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        members: Sequence[ensemble.Member],
        mesh: Mesh,
        is_cached: bool,
        *,
        clock: Clock | None = None,
        trace: StepTrace | None = None,
    ):
        self.config, self.members, self._data, self._mesh = config, list(members), data, mesh
        self._is_cached = is_cached
        self.clock, self._trace = clock or Clock(PHASES), trace or StepTrace(None)
        self._rows, self._development_rows = rows_of(data)
        selection.require_labels(config.train.selection, data.targets, self._development_rows, data.groups.speaker)
        self._shape = shape_of(data, self._rows, self._development_rows)
        self.settings = predictions.settings_of(config, data)
        self._class_weights = None
        if any(vocab.CLASS_LOSSES[member.class_kind].is_balanced for member in members):
            self._class_weights = data.class_weights(members)
        self._num_steps = data.planned_steps(self.members, self._shape, self._rows)
        self._groups = clusters.tables(data, self.members)
        data.require_groups(self.members, self._groups)
        if data.copies is not None:
            data.copies.require({fold: data.store_rows[rows] for fold, rows in self._rows.items()})
        self._weights = data.weights(self.members, self._groups)
        self._class_distances = data.class_distances(self.members) if self.settings.fixed.has_closeness else None
        self._statistics = data.normalisation(list(data.splits))
        self._speakers = speakers.of_store(data, self.members, speakers.OF_TRAINING)
        self.is_active = np.ones(len(members), bool)
        self._arrange(None)
        self._state = self._steps.init(self._train.members.values)
        # Copies that fill the last shards never train.
        self._let_train(np.arange(len(self._current.order)) < len(members))
        self._peak_flops_per_s = roofline.peak_flops_per_s(mesh, config.model.dtype)

    def _arrange(self, is_active: np.ndarray | None) -> None:
        """Makes feeds and steps for the members that are left; None means all."""
        with self.clock.phase("input"):
            self._feed(is_active)
        t = self.config.train
        self._steps = steps.compile_steps(
            self.settings,
            self._mesh,
            t.patience,
            t.min_delta,
            num_running=self._current.num_running,
            is_cached=self._is_cached,
        )

    def _feed(self, is_active: np.ndarray | None) -> None:
        self._current = arrange(len(self.members), self._mesh.shape[sharding.MEMBER], is_active)
        # The frames of the arrangement before must leave the devices first.
        self._train = self._development = None
        cache = cache_of(self._data, (self._rows, self._development_rows)) if self._is_cached else None
        placement = Placement(
            self.members, self._mesh, self._current, self._statistics, self._class_weights, self._num_steps,
            self._weights, self._class_distances, self._groups if self.settings.reads_groups else None,
            self._speakers,
        )  # fmt: skip
        self._train = Feed(self._data, placement, self._shape, self._rows, has_own_order=True, cache=cache)
        # Both splits lie in one cache, so the frames are on the devices already.
        self._development = Feed(
            self._data,
            placement,
            self._shape,
            self._development_rows,
            has_own_order=False,
            cache=cache,
            frames=self._train.inputs.frames,
        )

    def like(self, num_positions: int) -> TrainState:
        """Shapes of a state with so many positions, with shardings on this mesh.

        A checkpoint of another mesh may have a number of positions that the shards of this one do not divide. Its state
        is read whole on every device, and `take_over` spreads it.
        """
        fits = num_positions % self._mesh.shape[sharding.MEMBER] == 0
        where = sharding.by_member(self._mesh) if fits else sharding.replicated(self._mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((num_positions, *x.shape[1:]), x.dtype, sharding=where), self._state
        )

    def take_over(self, restored: TrainState) -> None:
        """Goes on from a restored state in the order of the members, with any number of positions."""
        index = self._current.member[self._current.places]
        is_member = np.arange(len(index)) < len(self.members)
        self._state = steps.take(restored, index, sharding.by_member(self._mesh))
        self._let_train(sharding.fetch(self._state.is_active) & is_member)
        self.is_active = self.values("is_active")
        self._compact()

    def canonical_state(self) -> TrainState:
        """The state in the order of the members, copies last. Checkpoints hold it, as it fits every arrangement."""
        places = self._current.places
        if (places == np.arange(len(places))).all():
            return self._state
        return self._steps.reorder(self._state, places)

    def best_params(self) -> Any:
        """Parameters [E, ...] of each member's best epoch, the same on every device."""
        places = self._current.places[: len(self.members)]
        return steps.take(self._state.best_params, places, sharding.replicated(self._mesh))

    def values(self, name: str) -> np.ndarray:
        """One entry of the state, [E], on the host."""
        return sharding.fetch(getattr(self._state, name))[self._current.places][: len(self.members)]

    def _let_train(self, is_active: np.ndarray) -> None:
        self._state = self._state._replace(is_active=self._train.whole_by_member(is_active))

    def epoch(
        self, position: Position, notice: Notice, save: Callable[[Position], None], progress: Progress
    ) -> dict[str, Any]:
        """Trains the rest of an epoch, then scores the development split. Returns the values of the epoch for the log.

        Args:
          position: Position to go on from.
          notice: Says whether a signal has asked to stop.
          save: Writes a checkpoint of the state at a position.
          progress: Shows the batches done.

        Raises:
          PreemptedError: A signal has asked to stop; the state is being saved.
        """
        began_s, number = time.monotonic(), position.epoch + 1
        with self.clock.phase("steps"):
            waited_s = self._train_epoch(position, notice, save, progress)
        trained_s = time.monotonic() - began_s
        num_batches = self._train.num_batches(number)
        tally = {name: self._by_member(sums) for name, sums in sharding.fetch(self._state.tally).items()}
        num_frames = self._train.num_frames_of(self._current) * (num_batches - position.batch) / num_batches
        num_examples = self._train.num_examples * (num_batches - position.batch) / num_batches
        with self.clock.phase("evaluation"):
            line = self._finish_epoch(number, tally)
        flops = roofline.head_flops(self.settings.sizes) * num_frames
        return line | {
            "examples_per_s": num_examples / trained_s,
            "share_of_peak": flops / trained_s / self._peak_flops_per_s,
            "train_s": trained_s,
            "input_wait_s": waited_s,
            "epoch_s": time.monotonic() - began_s,
        }

    def _train_epoch(
        self, position: Position, notice: Notice, save: Callable[[Position], None], progress: Progress
    ) -> float:
        """Steps over the rest of an epoch. Returns the seconds that were waited for input.

        JAX dispatches a step and returns at once. To read a result would wait for it, so the host reads nothing of a
        step here. It prepares the next batch while the device works, and the losses add up on the device
        (`TrainState.tally`) until the epoch has ended.
        """
        waited_s, waiting, number = 0.0, collections.deque(), position.epoch + 1
        batches = self._train.batches(number, position.batch)
        done = position.batch
        num_batches = self._train.num_batches(number)
        every = self.config.train.checkpoint_batches
        while done < num_batches:
            asked_s = time.monotonic()
            with self.clock.phase("input"):
                batch = next(batches)
            waited_s += time.monotonic() - asked_s
            self._state, ticket = self._trace.step(lambda batch=batch: self._step(batch))
            done += 1
            # The host waits for an earlier step, so that it does not run ahead without bound and fill the memory with
            # batches. The ticket is a small output of the step: the state itself is donated to the next step and gone.
            waiting.append(ticket)
            if len(waiting) > STEPS_AHEAD:
                jax.block_until_ready(waiting.popleft())
            here = Position(position.epoch, done)
            # After the last batch the development split is scored, and the caller saves the whole epoch.
            if done < num_batches and notice.has_come():
                save(here)
                raise PreemptedError(f"asked to stop in epoch {number}, after batch {done}")
            if every and done % every == 0 and done < num_batches:
                save(here)
            progress.update(0, f"epoch {number}, batch {done}/{num_batches}")
        jax.block_until_ready(self._state.step)
        return waited_s

    def _step(self, batch: Batch) -> tuple[TrainState, jax.Array]:
        return self._steps.train(self._state, self._train.members, batch, self._train.inputs)

    def predicted_development(self) -> list[selection.Predicted]:
        """What the members that still train say of the development split, an entry a stream."""
        return predictions.predict(self._steps.predict, self._state.params, self._development, self._current)

    def _scores(self, predicted: list[selection.Predicted]) -> np.ndarray:
        """[E] scores that select epochs; NaN for members that do not train any more."""
        score = self.config.train.selection
        if score == selection.LOSS:
            unweighted = [np.ones(len(self._data.targets.class_names), np.float32)] * len(self.members)
            values = values_of(self.members, self._class_weights or unweighted, class_distances=self._class_distances)
            labels = self._data.labels(self._data.targets)
            return -selection.development_losses(self.settings.fixed, predicted, labels, values)
        class_targets = [member.class_target for member in self.members]
        data = self._data
        return selection.development_scores(score, predicted, data.targets, class_targets, data.groups.speaker)

    def _by_member(self, values: np.ndarray) -> np.ndarray:
        return values[self._current.places][: len(self.members)]

    def _finish_epoch(self, number: int, tally: dict[str, np.ndarray]) -> dict[str, Any]:
        """Scores the development split, stops members that no longer improve, and arranges the rest.

        Args:
          number: Number of the epoch, from 1.
          tally: Sums over the updates of the epoch by name, each [E].

        Returns:
          The values of the epoch for the log.
        """
        predicted = self.predicted_development()
        scores = self._scores(predicted)
        was_active = self.is_active
        # Scores go back to the positions of their members. A copy has none, and NaN is never better.
        placed = np.append(scores, np.full(len(self._current.order) - len(scores), np.nan, np.float32))
        placed = placed[self._current.order]
        self._state = self._steps.finish_epoch(
            self._state, self._train.whole_by_member(placed.astype(np.float32)), np.int32(number)
        )
        self.is_active = self.values("is_active")
        counts = tally.pop("count")
        means = {
            f"train_{name}": np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).tolist()
            for name, sums in tally.items()
        }
        line = means | {
            "step": int(self.values("step").max()),
            "development_score": np.where(was_active, scores, np.nan).tolist(),
            "best_score": self.values("best_score").tolist(),
            "is_active": self.is_active.tolist(),
            "has_failed": self.values("has_failed").tolist(),
        }
        self._compact()
        return line

    def _compact(self) -> None:
        """Spreads the members that are left over the shards anew where that saves time.

        Stopped members keep their positions and parameters, but behind the trained ones of their shard, so that the new
        steps are compiled for fewer members. Values of members do not change: each one's stream of batches and random
        numbers depends on its own settings alone.
        """
        before = self._current
        if not is_worth_compacting(before, self.is_active, self.settings.member_map == "map"):
            return
        self._arrange(self.is_active)
        self._state = self._steps.reorder(self._state, before.places[self._current.order])
