"""Where a job fits: what is free on each node, and whether a request finds its nodes.

A 2-node job with 8 GPUs a node needs two nodes with 8 free GPUs, not 16 scattered ones.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice

from slurm_gov.core.snapshot import Held, Node, Request

CPU = "cpu"
"""The TRES of what asks for no GPUs: so many CPUs, wherever they are."""


class _Levels:
    """The nodes that one kind of request may look at, by how many GPUs (or CPUs) are free on each.

    So a placement looks at the few nodes it takes, not at all there are. Nodes are numbered in the order of
    their names; each level is a sorted list of numbers.
    """

    def __init__(self) -> None:
        self.levels: dict[int, list[int]] = {}

    def add(self, number: int, gpus: int) -> None:
        if gpus > 0:  # most nodes are full, and nobody looks at those
            insort(self.levels.setdefault(gpus, []), number)

    def move(self, number: int, old: int, new: int) -> None:
        levels = self.levels
        if old > 0:
            level = levels[old]
            del level[bisect_left(level, number)]
        if new in levels:
            insort(levels[new], number)
        else:
            self.add(number, new)

    def has(self, count: int, least: int) -> bool:
        """Whether so many nodes have at least so many GPUs free."""
        for gpus, level in self.levels.items():
            if gpus >= least:
                count -= len(level)
                if count <= 0:
                    return True
        return count <= 0

    def fullest_first(self, least: int) -> Iterable[int]:
        return chain.from_iterable([self.levels[gpus] for gpus in sorted(self.levels) if gpus >= least])

    def emptiest_first(self, below: int) -> Iterable[int]:
        return chain.from_iterable([self.levels[gpus] for gpus in sorted(self.levels, reverse=True) if gpus < below])


@dataclass(slots=True)
class _Free:
    """What is free on one node now. ``jobs`` counts who is on it, for exclusive requests."""

    node: Node
    number: int
    gpus: dict[str, int]
    cpus: int
    memory: int
    jobs: int = 0
    listed: list[tuple[str, _Levels]] = field(default_factory=list)
    by_cpus: list[_Levels] = field(default_factory=list)

    def free(self, tres: str) -> int:
        return self.cpus if tres == CPU else self.gpus.get(tres, 0)

    def change(self, held: Held, sign: int, jobs: int) -> None:
        gpus, number = self.gpus, self.number
        for tres, amount in held.gpus.items():
            if amount:
                old = gpus.get(tres, 0)
                new = gpus[tres] = old + sign * amount
                for counted, levels in self.listed:
                    if counted == tres:
                        levels.move(number, old, new)
        cpus = self.cpus + sign * held.cpus
        for levels in self.by_cpus:
            levels.move(number, self.cpus, cpus)
        self.cpus = cpus
        self.memory += sign * held.memory
        self.jobs += jobs


class Room:
    """Free amounts per usable node. A working copy: ``trial()`` takes back whatever was done inside it."""

    def __init__(self, nodes: Iterable[Node], all_usable: bool = False) -> None:
        """All of the nodes' capacity is free; nodes that are not usable are no room at all, unless told so."""
        self._all_usable = all_usable
        open_to_some = (node for node in nodes if all_usable or node.usable or node.reserved)
        usable = sorted(open_to_some, key=lambda node: node.name)
        self._all = [
            _Free(node, number, dict(node.gpus), node.cpus, node.memory) for number, node in enumerate(usable)
        ]
        self._free = {free.node.name: free for free in self._all}
        self._levels: dict[object, _Levels] = {}
        self._log: list[tuple[Held, int, int]] = []

    def take(self, held: Iterable[Held]) -> None:
        """These amounts are held by somebody."""
        for one in held:
            self._change(one, -1, 1)

    def give(self, held: Iterable[Held]) -> None:
        """These amounts are free again."""
        for one in held:
            self._change(one, 1, -1)

    def _change(self, held: Held, sign: int, jobs: int) -> None:
        free = self._free.get(held.node)
        if free is not None:
            free.change(held, sign, jobs)
            self._log.append((held, sign, jobs))

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Whatever is taken and given inside is undone at the end."""
        mark = self.mark()
        try:
            yield
        finally:
            self.undo(mark)

    def mark(self) -> int:
        """Where we are now, for ``undo``."""
        return len(self._log)

    def forget(self, mark: int) -> None:
        """What was done since stays: it is not to be undone."""
        del self._log[mark:]

    def settle(self) -> None:
        """What was taken and given so far stays: it is not to be undone."""
        self._log.clear()

    def undo(self, mark: int) -> None:
        """Take back what was taken and given since."""
        for held, sign, jobs in reversed(self._log[mark:]):
            self._free[held.node].change(held, -sign, -jobs)
        del self._log[mark:]

    def no_more_than(self, other: Room, held: Iterable[Held]) -> None:
        """On these nodes, no more is free here than there."""
        for one in held:
            here, there = self._free[one.node], other._free[one.node]
            gpus = {tres: here.gpus.get(tres, 0) - amount for tres, amount in there.gpus.items()}
            less = Held(
                one.node,
                {tres: amount for tres, amount in gpus.items() if amount > 0},
                max(0, here.cpus - there.cpus),
                max(0, here.memory - there.memory),
            )
            self._change(less, -1, max(0, there.jobs - here.jobs))

    def place(self, request: Request, partition: str, tres: str) -> tuple[Held, ...] | None:
        """Nodes that could take the request now, or ``None``. Fullest nodes first, as Slurm packs them.

        ``tres`` is the typed TRES the request's GPUs are of.
        """
        found = self._find(request, partition, tres)
        return None if found is None else tuple([_held(request, tres, free, gpus) for free, gpus in found])

    def has_place(self, request: Request, partition: str, tres: str) -> bool:
        """Whether there are such nodes."""
        return self._find(request, partition, tres) is not None

    def _find(self, request: Request, partition: str, tres: str) -> _Found | None:
        levels = self._listed(request, partition, tres)
        # Slurm takes all the required nodes, and others beside them if more are needed.
        count = max(request.min_nodes, len(request.required_nodes))
        if request.gpus_per_node and not levels.has(count, request.gpus_per_node):
            return None
        first: list[_Free] = []
        if request.required_nodes:
            if not request.required_nodes <= self._free.keys():
                return None
            first = [self._free[name] for name in sorted(request.required_nodes)]
            if not all(eligible(request, free.node, partition) and self._open(request, free.node) for free in first):
                return None
        if request.gpus_per_node:
            return self._find_equal(request, tres, count, first, levels)
        return self._find_spread(request, tres, count, first, levels)

    def count(self, request: Request, partitions: Iterable[str]) -> int:
        """How many nodes there are that a request may use, however full, with as many GPUs as it needs on one."""
        each, tres = request.gpus_per_node, tuple(request.gpus)
        return sum(
            any(eligible(request, free.node, one) for one in partitions)
            and max([free.node.gpus.get(name, 0) for name in tres], default=0) >= each
            for free in self._all
        )

    def _listed(self, request: Request, partition: str, tres: str) -> _Levels:
        key = (partition, tres, request.features, request.any_features, request.reservations)
        levels = self._levels.get(key)
        if levels is None:
            levels = self._levels[key] = _Levels()
            for free in self._all:
                node = free.node
                if not (partition in node.partitions and request.may_use(node) and self._open(request, node)):
                    continue
                if tres == CPU:
                    free.by_cpus.append(levels)
                elif tres in free.node.gpus:
                    free.listed.append((tres, levels))
                else:
                    continue
                levels.add(free.number, free.free(tres))
        return levels

    def _open(self, request: Request, node: Node) -> bool:
        return self._all_usable or is_open(request, node)

    def _others(self, request: Request, numbers: Iterable[int]) -> Iterable[_Free]:
        found = map(self._all.__getitem__, numbers)
        apart = request.excluded_nodes | request.required_nodes
        return (free for free in found if free.node.name not in apart) if apart else found

    def _find_equal(
        self, request: Request, tres: str, count: int, first: Sequence[_Free], levels: _Levels
    ) -> _Found | None:
        """Every node gives the same number of GPUs."""
        each = request.gpus_per_node
        cpus, memory = share_of(request, each, 0)
        exclusive = request.exclusive
        chosen: _Found = []
        if any(free.gpus.get(tres, 0) < each for free in first):
            return None
        for free in chain(first, self._others(request, levels.fullest_first(each))):
            if free.cpus >= cpus and free.memory >= memory and not (exclusive and free.jobs > 0):
                chosen.append((free, each))
                if len(chosen) == count:
                    return chosen
            elif len(chosen) < len(first):
                return None
        return None

    def _find_spread(
        self, request: Request, tres: str, count: int, first: Sequence[_Free], levels: _Levels
    ) -> _Found | None:
        """The total comes from as few nodes as possible, each giving a multiple of what one task needs."""
        total, unit = request.gpus.get(tres, 0), max(1, request.gpus_per_task)
        if total < count * unit:
            return None
        if any(_most(request, tres, free) < unit for free in first):
            return None
        others = chain(levels.fullest_first(total), levels.emptiest_first(total))
        chosen = _gather(request, tres, count, chain(first, self._others(request, others)))
        if chosen is not None and 0 < request.max_nodes < len(chosen):
            # By free GPUs they come in a good order; it is the best only where CPUs and memory do not matter.
            most = [(-_most(request, tres, self._all[one]), one) for one in levels.fullest_first(1)]
            best = self._others(request, (number for _, number in sorted(most)))
            chosen = _gather(request, tres, count, islice(chain(first, best), request.max_nodes))
        return chosen


_Found = list[tuple[_Free, int]]
"""Nodes, and how many GPUs each of them gives."""


def _gather(request: Request, tres: str, count: int, candidates: Iterable[_Free]) -> _Found | None:
    """The total of a request from these nodes, the first first, and from ``count`` at least."""
    unit, missing = max(1, request.gpus_per_task), request.gpus.get(tres, 0)
    chosen: _Found = []
    for free in candidates:
        most = _most(request, tres, free)
        if most > 0:
            # Each of the nodes still to come must get something.
            gpus = min(most, missing - unit * max(0, count - len(chosen) - 1))
            chosen.append((free, gpus))
            missing -= gpus
            if missing <= 0:
                return chosen if len(chosen) >= count else None
    return None


def _most(request: Request, tres: str, free: _Free) -> int:
    """How many GPUs of the total of a request a node could give, by its GPUs, CPUs and memory."""
    if request.exclusive and free.jobs > 0:
        return 0
    total = request.gpus.get(tres, 0)
    most = min(free.free(tres), request.most_per_node or total)
    cpus = free.cpus
    if request.memory_per_node:
        cpus = cpus if free.memory >= request.memory_per_node else 0
    elif request.memory_per_cpu:
        cpus = min(cpus, free.memory // request.memory_per_cpu)
    if request.cpus:
        most = min(most, max(0, cpus) * total // request.cpus)
    return most - most % max(1, request.gpus_per_task)


def _held(request: Request, tres: str, free: _Free, gpus: int) -> Held:
    node = free.node
    if request.exclusive:
        return Held(node.name, node.gpus, node.cpus, node.memory)
    cpus, memory = share_of(request, gpus, 0 if request.gpus_per_node else request.gpus.get(tres, 0))
    return Held(node.name, {} if tres == CPU else {tres: gpus}, cpus, memory)


def is_open(request: Request, node: Node) -> bool:
    """Whether Slurm would start the request on a node as it is now: there is nothing the matter with it, and it is
    reserved for nobody, or for the request.
    """
    return node.usable if not request.reservations else not node.reserved.isdisjoint(request.reservations)


def eligible(request: Request, node: Node, partition: str) -> bool:
    """Whether the request may use the node at all, however full it is."""
    named = request.required_nodes
    only_named = bool(named and request.gpus_per_node and len(named) >= request.min_nodes)
    return (
        partition in node.partitions
        and request.may_use(node)
        and node.name not in request.excluded_nodes
        and (not only_named or node.name in named)
    )


def easier(request: Request, other: Request) -> bool:
    """Whether one request surely finds its nodes wherever the other does; false if that is not known."""
    if request.exclusive or other.exclusive or request.required_nodes or other.required_nodes:
        return False
    if not 0 < request.gpus_per_node <= other.gpus_per_node or request.min_nodes > other.min_nodes:
        return False
    cpus, memory = share_of(request, request.gpus_per_node, 0)
    their_cpus, their_memory = share_of(other, other.gpus_per_node, 0)
    return (
        cpus <= their_cpus
        and memory <= their_memory
        and request.features <= other.features
        and request.reservations == other.reservations
        and (not request.any_features or request.any_features == other.any_features)
        and request.excluded_nodes <= other.excluded_nodes
    )


def share_of(request: Request, gpus: int, total: int) -> tuple[int, int]:
    """CPUs and memory (MiB) that a request takes on a node where it gets ``gpus`` of its ``total`` GPUs;
    with a total of 0, every node gives the same.
    """
    cpus = -(-request.cpus * gpus // total) if total else -(-request.cpus // max(1, request.min_nodes))
    return cpus, request.memory_per_node or request.memory_per_cpu * cpus
