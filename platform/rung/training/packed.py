"""Packed replication: the runs of a configuration are trained together, their steps batched over the runs.

For models whose step waits for the launch of its kernels more than for their arithmetic, which is small models on a
GPU; on a CPU there is nothing to gain (docs/performance.md). Every run keeps its own evaluation points, schedule,
clipping and end: a turn is that of `loop.train`, but for the step, which `pack.Pack` takes for all runs at once.
Evaluation stays run by run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from rung.errors import RungError
from rung.training.loop import Clock, Recorder, goes_on, log
from rung.training.pack import Gradients, Pack, cannot_pack, release
from rung.training.replication import Replication
from rung.training.run import Run
from rung.training.stacking import Structure, take_apart

Guard = Callable[[Run], AbstractContextManager[None]]
"""Around whatever concerns one run; may swallow an exception if it ends the run for it."""


class PackedReplication(Replication):
    """The runs of one configuration, trained together."""

    kind = "packed"

    def _train(self, level: float) -> None:
        obstacle = self._config.packing_obstacle() or self._trainable.packing_obstacle(self._config)
        if obstacle is not None:
            raise RungError(f"these runs cannot be trained together: {obstacle}; use replication: serial")
        members = []
        for seed in self._seeds:
            if seed not in self._failed:
                with self._guarded(seed):
                    run = self._run(seed)
                    if not run.has_ended:
                        recorder = self._recorder(run)
                        recorder.enter()
                        members.append(Member(run, recorder, recorder.leave))
        train_together(members, level, lambda run: self._guarded(run.trainable.seed))


class Member:
    """A run among those that are trained together.

    Args:
        run: the run.
        recorder: where its reports go.
        leave: called when it has ended or arrived, but not if it failed.
    """

    def __init__(self, run: Run, recorder: Recorder, leave: Callable[[Run], None] = lambda run: None) -> None:
        self.run = run
        self.recorder = recorder
        self.leave = leave
        self.clock = Clock(run.progress)


@dataclass
class _Group:
    """Members whose next batches can be stacked."""

    structure: Structure
    members: list[Member]
    batches: list[list[torch.Tensor]]

    @property
    def key(self) -> tuple[int, ...]:
        return tuple(id(member) for member in self.members)


def train_together(members: Sequence[Member], level: float, guard: Guard = lambda run: nullcontext()) -> None:
    """What `loop.train` does with one run, with several; they may stand at different steps.

    Args:
        members: the runs; those that have ended are left alone.
        level: where they are taken, in the unit of their goals.
        guard: entered around what concerns one run, and for every run of a step that could not be taken.

    Raises:
        RungError: their steps cannot be batched (see `Pack`), unless `guard` swallows it.
    """
    packs: dict[tuple[int, ...], Pack] = {}
    while members:
        # For each run: evaluate, stop if it is time, fetch a batch.
        groups = _next_groups(members, level, guard)
        staying = {id(member) for group in groups for member in group.members}
        for member in members:
            if id(member) not in staying:
                _leave(member, guard)
        members = [member for member in members if id(member) in staying]

        # One step of training, together as far as the batches allow. A pack of other members is a new one.
        packs = {group.key: packs[group.key] for group in groups if group.key in packs}
        for group in groups:
            try:
                if group.key not in packs:
                    packs[group.key] = _pack([member.run for member in group.members])
                gradients = _gradients(packs[group.key], group)
            except RungError as error:
                for member in group.members:
                    with guard(member.run):
                        raise error
            else:
                _step(packs[group.key], gradients, group.members, guard)


def _next_groups(members: Sequence[Member], level: float, guard: Guard) -> list[_Group]:
    """The first half of a turn: those that go on, grouped by the structure of their next batch."""
    groups: dict[Structure, _Group] = {}
    for member in members:
        run = member.run
        with guard(run):
            member.clock.restart()
            if goes_on(run, level, member.recorder, member.clock):
                with run.precision:
                    tensors, structure = take_apart(run.stream.at(run.progress.step, run.model))
                group = groups.setdefault(structure, _Group(structure, [], []))
                group.members.append(member)
                group.batches.append(tensors)
                member.clock.read()
    return list(groups.values())


def _pack(runs: Sequence[Run]) -> Pack:
    try:
        return Pack(runs)
    except torch.OutOfMemoryError as error:
        raise cannot_pack(runs, error) from error


def _gradients(pack: Pack, group: _Group) -> Gradients:
    for member in group.members:
        member.clock.restart()
    return pack.gradients(group.structure, group.batches)


def _step(pack: Pack, gradients: Gradients, members: list[Member], guard: Guard) -> None:
    """The second half of a turn: those whose loss is finite take the step, and it is noted where they stand."""
    finite = [index for index, loss in enumerate(gradients.losses) if math.isfinite(loss)]
    if len(finite) < len(members):
        for index in set(range(len(members))) - set(finite):
            members[index].run.progress.end("diverged", "divergence")
        if not finite:
            return
        members = [members[index] for index in finite]
        pack, gradients = Pack([member.run for member in members]), gradients.of(finite)
    pack.step(gradients)
    for member in members:
        member.run.progress.step += 1
        member.run.progress.tokens += gradients.tokens
        member.clock.read(shared_by=len(members))
    for member, loss in zip(members, gradients.losses, strict=True):
        with guard(member.run):
            if member.run.config.evaluation.is_logged(member.run.progress.step):
                member.recorder.log(member.run, log(member.run, loss))
            member.recorder.after_step(member.run)


def _leave(member: Member, guard: Guard) -> None:
    with guard(member.run):
        release(member.run)
        if member.run.progress.status != "failed":
            member.leave(member.run)
