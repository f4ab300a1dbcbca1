"""The jobs of a storm: all forms in which a job may ask for nodes, in bursts of one team and then of another."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

NODES = {"h100": (20, 8), "a100": (12, 4)}
CAPACITY = {pool: nodes * gpus for pool, (nodes, gpus) in NODES.items()}
LONG = "h100-long"
"""A second partition of the pool h100, with half of its nodes."""
PARTITION = f"PartitionName={LONG} Nodes=h100-[1-10] DefaultTime=1-00:00:00 MaxTime=INFINITE State=UP"
FEATURES = {"ib": "h100-[1-6],a100-[1-4]", "ib,fast": "h100-[7-12],a100-[5-8]", "fast": "h100-[13-16]"}
TEAMS = ("vision", "speech", "product")
STRANGERS = "visitors"
"""An account without a policy."""
LOAD = 1.2
"""How much more work than the cluster can do while it comes in: so that teams borrow and owners take back."""
ANYWHERE = ("part", "spread", "array", "untyped", "per task")
"""The kinds that find their GPUs on whatever nodes have some."""

Parts = list[list[str]]
"""The options of each component; only a het job has several."""


@dataclass
class Wish:
    """A job to be submitted. ``gpus`` is what one task of it will hold: whole nodes, if it is exclusive.

    ``held``: seconds after which its user releases it; ``follows``: it depends on the job submitted before it;
    ``limited``: it has a time limit, and ends before.
    """

    at: float
    account: str
    pool: str
    kind: str
    gpus: int
    parts: Parts
    seconds: float
    tasks: int = 1
    priority: str = ""
    leaves: bool = False
    requeue: bool = True
    begin: float = 0.0
    held: float = 0.0
    follows: bool = False
    limited: bool = False

    @property
    def fits_everywhere(self) -> bool:
        """Whether it needs no more than a part of any node."""
        return self.kind in ANYWHERE and 0 < self.gpus <= NODES[self.pool][1] // 2

    def arguments(self, before: int | None) -> list[str]:
        """What sbatch is to be called with; ``before`` is the job submitted before it."""
        arguments = ["--hold"] if self.held else []
        if not self.requeue:
            arguments.append("--no-requeue")
        if self.begin:
            arguments.append(f"--begin=now+{self.begin:.0f}")
        if self.follows and before is not None:
            arguments.append(f"--dependency=afterany:{before}")
        for number, part in enumerate(self.parts):
            arguments += [":"] if number else []
            arguments += [f"--account={self.account}", "--output=/dev/null", *part]
            if self.priority:
                arguments.append(f"--qos={self.priority}")
            if self.limited:
                arguments.append(f"--time={ceil(self.seconds / 60) + 1}")
        return arguments


def storm(dice: random.Random, jobs: int, seconds: float) -> list[Wish]:
    """So many jobs, in the order in which they come within this time."""
    wishes: list[Wish] = []
    deck: list[str] = []
    while sum(wish.tasks for wish in wishes) < jobs:
        burst = dice.uniform(0, seconds)
        team = dice.choice(TEAMS)
        for _ in range(dice.randint(2, 9)):
            if not deck:  # of every kind, also where they are few
                deck = [kind for kind, (_, count) in KINDS.items() for _ in range(count)]
                dice.shuffle(deck)
            wishes.append(_wish(dice, deck.pop(), min(seconds, burst + dice.expovariate(0.5)), team))
    # Two teams have nothing to do at first: the third borrows what is theirs.
    for wish in wishes:
        if wish.at < seconds / 8 and wish.account != STRANGERS:
            wish.account = "vision"
    work = sum(wish.gpus * wish.seconds * wish.tasks for wish in wishes)
    scale = LOAD * sum(CAPACITY.values()) * seconds / work
    for wish in wishes:
        wish.seconds = min(60.0, max(2.0, wish.seconds * scale))
    return sorted(wishes, key=lambda wish: wish.at)


def _wish(dice: random.Random, kind: str, at: float, team: str) -> Wish:
    pool = "h100" if kind == "partitions" else dice.choices(["h100", "a100"], [4, 1])[0]
    gpus, parts = KINDS[kind][0](dice, pool, NODES[pool][1])
    for part in parts:
        if not any(option.startswith("--partition") for option in part):
            part.insert(0, f"--partition={pool}")
    wish = Wish(at, team, pool, kind, gpus, parts, dice.uniform(4, 20))
    if kind == "array":
        wish.tasks = dice.randint(3, 8)
        parts[0].append(f"--array=1-{wish.tasks}{dice.choice(['', '%2'])}")
    wish.priority = dice.choice(["", "experiment", "training", "inference"])
    wish.leaves = dice.random() < 0.5
    wish.limited = dice.random() < 0.3
    match dice.choices(["", "no-requeue", "begin", "held", "follows"], [78, 4, 6, 6, 6])[0]:
        case "no-requeue":
            wish.requeue = False
        case "begin":
            wish.begin = 5.0
        case "held":
            wish.held = dice.uniform(3, 10)
        case "follows":
            wish.follows = True
    if gpus <= NODES[pool][1] and dice.random() < 0.08:
        wish.account, wish.priority = STRANGERS, ""
    return wish


# -- what they ask for: GPUs in all, and how they say it -------------------------------------------------------


def _part(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(1, each // 2)
    return gpus, [["-N1", f"--gres=gpu:{pool}:{gpus}"]]


def _node(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    return each, [["-N1", f"--gpus-per-node={pool}:{each}"]]


def _nodes(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    count = dice.randint(2, 4)
    return count * each, [[f"-N{count}", f"--gpus-per-node={pool}:{each}"]]


def _spread(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(2, 2 * each)
    return gpus, [[f"--gpus={pool}:{gpus}"]]


def _some(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(1, each)
    return gpus, [["-N1", f"--gpus-per-node={pool}:{gpus}"]]


def _untyped(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(1, each)
    return gpus, [["-N1", f"--gpus-per-node={gpus}"]]


def _on_one_node(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(2, each)
    return gpus, [["-N1", dice.choice([f"--gpus={pool}:{gpus}", f"--gpus={gpus}"])]]


def _on_two_nodes(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(2, 2 * each)
    return gpus, [["-N2", f"--gpus={pool}:{gpus}"]]


def _per_task(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    tasks, gpus = dice.randint(1, 5), dice.randint(1, 2)
    return tasks * gpus, [[f"-n{tasks}", f"--gpus-per-task={pool}:{gpus}"]]


def _tasks_per_node(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    nodes, tasks = dice.randint(1, 3), dice.randint(1, 2)
    gpus = dice.randint(1, each // tasks)
    options = [f"-n{nodes * tasks}", f"--ntasks-per-node={tasks}", f"--gpus-per-task={pool}:{gpus}"]
    return nodes * tasks * gpus, [options]


def _exclusive(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    count = dice.randint(1, 2)
    return count * each, [["--exclusive", f"-N{count}", dice.choice([f"--gres=gpu:{pool}:1", "-n2"])]]


def _featured(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    count, gpus = dice.randint(1, 2), dice.randint(1, each)
    feature = dice.choice(["ib", "fast", "ib&fast", "ib|fast"])
    return count * gpus, [[f"-C{feature}", f"-N{count}", f"--gpus-per-node={pool}:{gpus}"]]


def _named(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    count, gpus = dice.randint(1, 2), dice.randint(1, each)
    node = f"{pool}-{dice.randint(1, NODES[pool][0])}"
    return count * gpus, [[f"-w{node}", f"-N{count}", f"--gpus-per-node={pool}:{gpus}"]]


def _excluding(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus, most = dice.randint(1, each), NODES[pool][0] - 4
    first = dice.randint(1, most)
    return gpus, [[f"-x{pool}-[{first}-{dice.randint(first, most) + 1}]", "-N1", f"--gpus-per-node={pool}:{gpus}"]]


def _partitions(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    gpus = dice.randint(1, each)
    return gpus, [[f"--partition={dice.choice([LONG, f'{pool},{LONG}'])}", "-N1", f"--gpus-per-node={pool}:{gpus}"]]


def _het(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    """GPUs by component, 0 for one of CPUs alone. Together they are within every quota: Slurm 26.05 refuses a het job
    that asks for more than the cap of the moment.
    """
    amounts = [dice.randint(1, each), dice.randint(1, each), 0][: dice.randint(2, 3)]
    dice.shuffle(amounts)
    forms = [[f"--gpus={pool}:{gpus}"] if gpus else ["-n2"] for gpus in amounts]
    return sum(amounts), [[*form, *dice.choice([[], ["-N1"]])] for form in forms]


def _cpus(dice: random.Random, pool: str, each: int) -> tuple[int, Parts]:
    return 0, [[f"-n{dice.randint(1, 4)}", f"-c{dice.randint(1, 4)}"]]


_Form = Callable[[random.Random, str, int], tuple[int, Parts]]
KINDS: dict[str, tuple[_Form, int]] = {
    "part": (_part, 8),
    "node": (_node, 5),
    "nodes": (_nodes, 5),
    "spread": (_spread, 3),
    "array": (_some, 3),
    "untyped": (_untyped, 2),
    "on one node": (_on_one_node, 2),
    "on two nodes": (_on_two_nodes, 2),
    "per task": (_per_task, 2),
    "tasks per node": (_tasks_per_node, 2),
    "exclusive": (_exclusive, 2),
    "featured": (_featured, 3),
    "named": (_named, 2),
    "excluding": (_excluding, 2),
    "partitions": (_partitions, 2),
    "het": (_het, 4),
    "cpus": (_cpus, 2),
}
"""How they ask, and how often each comes in one round."""
