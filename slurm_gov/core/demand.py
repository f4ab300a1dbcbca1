"""What waiting jobs ask for: of which pool, counted for which team, on which nodes.

Thousands of jobs wait, and most are the same as others to policy and nodes: they are one ``Kind``. What a kind
is follows from policy, accounts and what nodes there are alone; neither from what runs nor from what is healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from slurm_gov.core import beside
from slurm_gov.core.capacity import ceiling
from slurm_gov.core.decision import Reason
from slurm_gov.core.policy import Policy, Pool, Resource, frozen
from slurm_gov.core.room import CPU, Room, easier
from slurm_gov.core.shares import Amounts, limits
from slurm_gov.core.snapshot import Held, Node, Request, Snapshot, WaitingJob


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What a job asks of the nodes: equal ones are one object. The request is in the pool's typed TRES.

    ``gpus``, ``cpus`` and ``memory`` (MiB) are what it would be given: an exclusive job gets all of its nodes,
    whatever it asked for. ``others``: what the other components of a het job ask for, all of it at once.
    Without GPUs it is CPUs that are looked for, as many as the request has of the TRES ``cpu``.
    """

    request: Request
    pool: Pool
    partitions: tuple[str, ...]
    gpus: int
    fits_empty: bool = True
    cpus: int = 0
    memory: int = 0
    others: tuple[Form, ...] = ()

    @property
    def tres(self) -> str:
        """What of a node it looks at."""
        return self.pool.tres if self.gpus else CPU

    def place(self, room: Room) -> tuple[Held, ...] | None:
        """Nodes for it, in the first of its partitions that has them."""
        if self.others:
            return self._place_all(room)
        for partition in self.partitions:
            held = room.place(self.request, partition, self.tres)
            if held is not None:
                return held
        return None

    def _place_all(self, room: Room) -> tuple[Held, ...] | None:
        """Nodes for all components. One may take what another needs more: each goes first once."""
        parts = [replace(self, others=()), *self.others]
        for number in range(len(parts)):
            held: tuple[Held, ...] = ()
            with room.trial():
                for one in (*parts[number:], *parts[:number]):
                    more = one.place(room)
                    if more is None:
                        break
                    room.take(more)
                    held += more
                else:
                    return held
        return None

    def fits(self, room: Room) -> bool:
        """Whether there are nodes for it."""
        if self.others:
            return self.place(room) is not None
        for partition in self.partitions:  # noqa: SIM110 (a plain loop: nothing is asked more often)
            if room.has_place(self.request, partition, self.tres):
                return True
        return False

    def is_easier(self, other: Form) -> bool:
        """Whether it surely finds its nodes wherever the other does; false if that is not known."""
        if self is other:
            return True
        same = self.pool is other.pool and self.partitions == other.partitions and not self.others
        return same and easier(self.request, other.request)

    @property
    def parts(self) -> tuple[Form, ...]:
        """Itself and the other components."""
        return (self, *self.others)

    @property
    def plain(self) -> bool:
        """Whether it can be judged where it fits, so that others may have to leave for it."""
        return all(one.request.plain for one in self.parts)

    @property
    def equal_nodes(self) -> bool:
        """Whether more room is never worse for it: every node gives the same number of GPUs."""
        return self.request.gpus_per_node > 0 and not self.others

    @property
    def nodes(self) -> object:
        """Equal for those that may use the same nodes, however full these are."""
        request = self.request
        if request.required_nodes or self.others:
            return self
        return (
            self.pool.name,
            self.partitions,
            request.features,
            request.any_features,
            request.excluded_nodes,
            request.reservations,
        )

    def __str__(self) -> str:
        """In words: "2 nodes with 8 h100 each"."""
        return " and ".join(one._in_words() for one in self.parts)

    def _in_words(self) -> str:
        request, pool = self.request, self.pool.name
        least, most = request.min_nodes, request.max_nodes
        if request.gpus_per_node:
            nodes = "1 node" if least == 1 else f"{least} nodes"
            return f"{nodes} with {request.gpus_per_node} {pool}{' each' if least > 1 else ''}"
        on = f" on {least} or more nodes" if least > 1 else ""
        if most:
            on = f" on {most} nodes" if most == least else f" on {least} to {most} nodes"
        return f"{self.gpus} {pool}{on}" if self.gpus else f"{self.cpus} CPUs{on} of {pool}"


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """What a job would count for: amounts per resource, for a team. Equal ones are one object."""

    team: str
    amounts: Amounts


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """Waiting jobs that are the same to policy and nodes. If they are demand, they have a ``want`` and a ``form``;
    else ``no_demand`` says why they are none. ``priority`` is the weight of their class. ``comes_last``: Slurm has
    not started them where there seemed to be room; ``takes_nobody``: nobody is to leave for them.
    """

    team: str | None
    pool: str | None
    priority: int
    want: Want | None = None
    form: Form | None = None
    no_demand: tuple[Reason, str] | None = None
    comes_last: bool = False
    takes_nobody: bool = False


class Kinds:
    """The kinds of a cluster's waiting jobs, found as jobs are asked for."""

    def __init__(self, policy: Policy, nodes: Iterable[Node], parents: Mapping[str, str]) -> None:
        self.policy = policy
        self._bare = Snapshot(0.0, tuple(nodes), (), (), parents)
        # What everyone could hold, and where a job would fit, if all were healthy and idle.
        self._ceiling = ceiling(policy, self._bare)
        self._empty = Room(self._bare.nodes, all_usable=True)
        self._kinds: dict[object, Kind] = {}
        self._forms: dict[object, Form] = {}
        self._found: dict[object, tuple[list[Form], str]] = {}
        self._wants: dict[object, Want] = {}
        self._asks: dict[tuple[str, Form], tuple[Want, str | None]] = {}
        self._team_of: dict[str, str | None] = {}
        self._easier: dict[tuple[Form, Form], bool] = {}

    @property
    def count(self) -> int:
        """How many have been found."""
        return len(self._kinds)

    def team(self, account: str) -> str | None:
        """The team an account belongs to."""
        if account not in self._team_of:
            self._team_of[account] = self._bare.team_of(self.policy, account)
        return self._team_of[account]

    def is_easier(self, form: Form, other: Form) -> bool:
        """``Form.is_easier``, looked up once."""
        known = self._easier.get((form, other))
        if known is None:
            known = self._easier[form, other] = form.is_easier(other)
        return known

    def of(self, job: WaitingJob) -> Kind:
        """What a waiting job is to policy and nodes."""
        others = tuple([(one.partitions, one.request.shape) for one in job.others]) if job.others else ()
        key = (
            job.account,
            job.partitions,
            job.qos,
            job.request.shape,
            others,
            bool(job.part_of),
            job.comes_last,
            job.takes_nobody,
        )
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = self._find(job, key[3], others)
        return kind

    def _find(self, job: WaitingJob, shape: object, others: object) -> Kind:
        team = self.team(job.account)
        looks_for = job.partitions, shape, others
        if looks_for not in self._found:
            self._found[looks_for] = self._whole_forms(job)
        forms, problem = self._found[looks_for]
        if not (forms or team is None or job.others or job.request.gpus or job.request.exclusive):
            forms = self._form_of_cpus(team, job)
        pool = forms[0].pool.name if forms else None
        priority = self.policy.priority_of(job.qos)
        if job.part_of:
            return Kind(team, pool, priority)
        if team is None:
            why = f"account {job.account} belongs to no team: Slurm alone decides when this job runs"
            return Kind(team, pool, priority, no_demand=(Reason.NO_TEAM, why))
        if not forms:
            return Kind(team, pool, priority, no_demand=(Reason.NO_POOL, problem))
        # Of several pools the first, in the order of its partitions, in which it can run at all.
        asked = [self._asked(team, form) for form in forms]
        form, (want, never) = next(
            (one for one in zip(forms, asked, strict=True) if one[1][1] is None), (forms[0], asked[0])
        )
        if never is not None:
            return Kind(team, pool, priority, no_demand=(Reason.CAN_NEVER_RUN, never))
        takes_nobody = job.takes_nobody or not form.plain
        return Kind(team, form.pool.name, priority, want, form, None, job.comes_last, takes_nobody)

    def _asked(self, team: str, form: Form) -> tuple[Want, str | None]:
        """What a team's job of this form would count for, and why it could never run, if so."""
        asks = team, form
        if asks not in self._asks:
            want = self._want(team, form)
            self._asks[asks] = want, self._never(want, form)
        return self._asks[asks]

    def _whole_forms(self, job: WaitingJob) -> tuple[list[Form], str]:
        """What a job asks of the nodes, in each pool, or why there is none. A het job is one of all its components,
        of each the first pool; whoever of them asks for no GPUs is left to Slurm.
        """
        found, problem = self._forms_in(job.partitions, job.request)
        if not job.others:
            return found, problem
        parts = [found, *(self._forms_in(one.partitions, one.request)[0] for one in job.others)]
        forms = [of_one[0] for of_one in parts if of_one]
        if len(forms) < 2:
            return forms, problem
        # Who has the fewest nodes to choose from goes first.
        forms.sort(key=lambda form: (self._empty.count(form.request, form.partitions), -form.gpus))
        whole = replace(forms[0], others=tuple(forms[1:]))
        fits = all(form.fits_empty for form in forms) and whole.fits(self._empty)
        return [replace(whole, fits_empty=fits)], ""

    def _forms_in(self, partitions: tuple[str, ...], request: Request) -> tuple[list[Form], str]:
        """The pools and partitions that GPUs may come from, or why there are none."""
        if not request.gpus and not request.exclusive:
            return [], "it asks for no GPUs: Slurm alone decides when it runs"
        found: dict[str, Form] = {}
        for partition in partitions:
            here = [pool for pool in self.policy.pools.values() if partition in pool.partitions]
            typed = [pool for pool in here if request.gpus.get(pool.tres)]
            # An exclusive job gets its nodes' GPUs even if it asked for none.
            untyped = [pool for pool in here if request.gpus.get(pool.untyped_tres) or not request.gpus]
            if typed or len(untyped) == 1:
                pool = (typed or untyped)[0]
                amount = request.gpus.get(pool.tres if typed else pool.untyped_tres, request.min_nodes)
                mine = tuple(one for one in partitions if one in pool.partitions)
                key = (request.shape, pool.name, mine)
                if key not in self._forms:
                    self._forms[key] = self._measured(Form(_typed(request, pool), pool, mine, amount))
                found[pool.name] = self._forms[key]
        asked = ", ".join(sorted(request.gpus)) or "exclusive nodes"
        return list(found.values()), f"no pool of the policy has {asked} in partition {','.join(partitions)}"

    def _form_of_cpus(self, team: str, job: WaitingJob) -> list[Form]:
        """What a job without GPUs asks for, if its team has a quota of CPUs or memory in its partitions' pool."""
        pools = {
            next((pool.name for pool in self.policy.pools.values() if one in pool.partitions), None)
            for one in job.partitions
        }
        (name, *others) = pools
        if name is None or others:
            return []
        if self.policy.teams[team].quotas.keys().isdisjoint({f"{name}/cpu", f"{name}/mem"}):
            return []
        key = (job.request.shape, name, job.partitions)
        if key not in self._forms:
            request = replace(job.request, gpus=frozen({CPU: job.request.cpus}), gpus_per_node=0)
            self._forms[key] = self._measured(Form(request, self.policy.pools[name], job.partitions, 0))
        return [self._forms[key]]

    def _measured(self, form: Form) -> Form:
        """Whether it finds its nodes where everything is healthy and idle, and what it gets there if exclusive."""
        held = form.place(self._empty)
        if held is None:
            return replace(form, fits_empty=False)
        cpus, memory = beside.totals(held)
        if form.request.exclusive:
            gpus = sum(one.gpus.get(form.pool.tres, 0) for one in held)
            return replace(form, gpus=gpus, cpus=cpus, memory=memory)
        return replace(form, cpus=form.request.cpus, memory=memory)

    def _want(self, team: str, form: Form) -> Want:
        amounts: dict[Resource, int] = {}
        for one in form.parts:
            mine = {one.pool.name: one.gpus} if one.gpus else {}
            mine |= beside.amounts(self.policy, team, one.pool.name, one.cpus, one.memory)
            for resource, amount in mine.items():
                amounts[resource] = amounts.get(resource, 0) + amount
        key = (team, *amounts.items())
        if key not in self._wants:
            self._wants[key] = Want(team, amounts)
        return self._wants[key]

    def _never(self, want: Want, form: Form) -> str | None:
        """Why a job could not run even if everything were healthy and idle."""
        team = want.team
        for resource, amount in want.amounts.items():
            # Whatever its cohort can spare: its quota is always its own.
            most = max(self._ceiling.available(team, resource), self._ceiling.quota(team, resource).nominal)
            if amount > most:
                return (
                    f"asks for {amount} {resource}, and team {team} can never hold more than {most} "
                    f"({limits(self._ceiling, team, resource)})"
                )
        if not form.fits_empty:
            where = ",".join(dict.fromkeys(name for one in form.parts for name in one.partitions))
            return f"asks for {form}, which partition {where} could not give even if it were empty"
        return None


def _typed(request: Request, pool: Pool) -> Request:
    """The request with its GPUs counted in the pool's typed TRES."""
    if pool.tres in request.gpus:
        return request
    if not request.gpus:  # exclusive nodes: one GPU of each, and so all of them
        return replace(request, gpus=frozen({pool.tres: request.min_nodes}), gpus_per_node=1)
    return replace(request, gpus=frozen({pool.tres: request.gpus[pool.untyped_tres]}))
