"""The policy of SageMaker HyperPod Task Governance as ours: compute quotas and the cluster policy of AWS's API.

Read are what ``create-compute-quota`` and ``create-cluster-scheduler-config`` take, and what ``describe-…`` and
``list-compute-quotas`` print: one object a file, a list of them, or a whole listing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from slurm_gov.policy import accelerators
from slurm_gov.policy.importing import (
    MOST,
    Draft,
    Holder,
    Imported,
    Limit,
    Names,
    Notes,
    Object,
    PoolOption,
    Pools,
    Source,
    finish,
    is_type,
    number_limit,
    refuse,
    rounded,
    whole_problem,
)
from slurm_gov.policy.problems import PolicyError, Problem, shown
from slurm_gov.policy.text import parse_all

_QUOTA = ("ComputeQuotaTarget", "ComputeQuotaConfig", "ComputeQuotaId", "ComputeQuotaArn")
_SCHEDULER = ("SchedulerConfig", "ClusterSchedulerConfigId", "ClusterSchedulerConfigArn")
_LISTS = ("ComputeQuotaSummaries", "ClusterSchedulerConfigSummaries")
# What AWS keeps beside the policy itself; it says nothing about who gets what.
_RECORDS = (
    "Description",
    "Tags",
    "CreationTime",
    "CreatedBy",
    "LastModifiedTime",
    "LastModifiedBy",
    "FailureReason",
    "StatusDetails",
    "ResponseMetadata",
    "Name",
    "ClusterArn",
    "Status",
)
_GONE = ("CreateFailed", "CreateRollbackFailed", "Deleting", "Deleted")
_BESIDE = {"cpu": ("VCpu", 1), "mem": ("MemoryInGiB", 1024)}  # what stands behind the pool; CPUs or MiB in one
_BORROW = 50  # percent, where BorrowLimit is not set
_MOST_PERCENT = 500  # what the policy file takes


def import_hyperpod(
    sources: Sequence[Source],
    pools: Mapping[str, PoolOption] | None = None,
    gpus_per_instance: Mapping[str, int] | None = None,
    cluster: str | None = None,
) -> Imported:
    """The policy file for these files. Raises PolicyError with every mistake in them.

    ``pools`` says for an instance type (``ml.p5.48xlarge``, or ``ml.p5.48xlarge/mig-1g.10gb`` for a part of its GPUs)
    what it is in Slurm; ``gpus_per_instance`` how many GPUs it has, where that is not known; ``cluster`` is the ARN
    of the only cluster to read, or its last part.
    """
    problems: list[Problem] = []
    quotas: list[Object] = []
    schedulers: list[Object] = []
    more = False
    for source in sources:
        for one in _objects(source, problems):
            if any(one.has(name) for name in _LISTS):
                more = more or one.has("NextToken")
                items = [*one.list(_LISTS[0]), *one.list(_LISTS[1])]
            else:
                items = [one]
            for item in items:
                if cluster and not str(item.data.get("ClusterArn") or cluster).endswith(cluster):
                    continue
                if any(item.has(name) for name in _QUOTA):
                    quotas.append(item)
                elif any(item.has(name) for name in _SCHEDULER):
                    schedulers.append(item)
                else:
                    item.wrong(
                        (),
                        "is no compute quota and no cluster policy",
                        "give what aws sagemaker describe-compute-quota, list-compute-quotas or "
                        "describe-cluster-scheduler-config prints",
                    )
    refuse(problems)
    found = _Import(problems, pools or {}, gpus_per_instance or {})
    if more:
        found.notes.add("a listing has a NextToken", "it goes on: give its other pages too")
    return found.run(
        _newest(quotas, "ComputeQuota"),
        _newest(schedulers, "ClusterSchedulerConfig"),
        [source.name for source in sources],
    )


def _objects(source: Source, problems: list[Problem]) -> Iterator[Object]:
    """The JSON objects of a file, with the place of everything in them."""
    try:
        data = json.loads(source.text)
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: {error.msg}"
        raise PolicyError([Problem(source.name, error.lineno, error.colno, "", message)]) from None
    except RecursionError:
        raise whole_problem(source.name, "is nested too deeply") from None
    if not isinstance(data, dict | list):
        raise whole_problem(source.name, "holds no JSON object", "give what the aws command prints")
    # JSON is YAML, but for tabs, which stand only between its values.
    documents, twice = parse_all(source.text.replace("\t", " "), source.name)
    problems += twice
    for document in documents:
        several = isinstance(document.data, list)
        for index, one in enumerate(document.data if several else [document.data]):
            path = (str(index),) if several else ()
            if isinstance(one, dict):
                yield Object(source.name, document, path, one, problems)
            else:
                place = document.place(path)
                problems.append(Problem(source.name, place.line, place.column, "", "is no JSON object"))


def _newest(objects: list[Object], what: str) -> list[Object]:
    """Each of them once: several files may hold the same one, in several versions."""
    best: dict[str, Object] = {}
    for index, one in enumerate(objects):
        key = str(one.data.get(f"{what}Id") or one.data.get(f"{what}Arn") or index)
        other = best.get(key)
        if other is None or _version(one, what) > _version(other, what):
            best[key] = one
        elif _version(one, what) == _version(other, what) and len(one.data) > len(other.data):
            best[key] = one  # a description says more than a listing
    return list(best.values())


def _version(one: Object, what: str) -> int:
    version = one.data.get(f"{what}Version")
    return version if isinstance(version, int) else 0


class _Import:
    """One import: what is known so far."""

    def __init__(
        self, problems: list[Problem], pools: Mapping[str, PoolOption], gpus_per_instance: Mapping[str, int]
    ) -> None:
        self.problems = problems
        self.notes = Notes()
        self.pools = Pools(pools)
        self.per_instance = gpus_per_instance
        self.teams = Names(self.notes, "team", "Slurm account")
        self.classes = Names(self.notes, "priority class", "Slurm QOS")
        self.draft = Draft()

    def run(self, quotas: list[Object], schedulers: list[Object], files: list[str]) -> Imported:
        if not quotas:
            raise whole_problem(", ".join(files), "holds no compute quota", "give what list-compute-quotas prints")
        arns = sorted({str(one.data["ClusterArn"]) for one in [*quotas, *schedulers] if one.has("ClusterArn")})
        if len(arns) > 1:
            what = f"hold {len(arns)} clusters: {', '.join(arns)}"
            raise whole_problem(", ".join(files), what, f"import one: --cluster {arns[0].rpartition('/')[2]}")
        seen: dict[str, Object] = {}
        for quota in quotas:
            self._team(quota, seen)
        for other in schedulers[1:]:
            other.wrong(
                (), "is a second cluster policy", f"one cluster has one; the first is at {schedulers[0].line}"
            )
        self._cluster_policy(schedulers[0] if schedulers else None)
        for unused in self.pools.unused():
            known = ", ".join(sorted(self.pools.asked)) or "none"
            raise whole_problem(f"--pool {unused}", "is no instance type of these files", f"there are: {known}")
        refuse(self.problems)
        if not self.draft.teams:
            raise whole_problem(", ".join(files), "every compute quota in it is disabled or deleted: no team is left")
        self.pools.notes(self.notes, "instance types")
        if not self.pools.made:
            raise whole_problem(", ".join(files), "no compute quota in it has accelerators, and ours are of GPUs")
        self._fill()
        self.draft.origin = [
            "The policy of slurm-gov, imported from the compute quotas and the cluster policy of SageMaker HyperPod"
            + (":" if arns else "."),
            *arns,
        ]
        return finish(self.draft, self.notes)

    # -- teams ---------------------------------------------------------------------------------------------

    def _team(self, quota: Object, seen: dict[str, Object]) -> None:
        name = quota.text("Name") or quota.text("ComputeQuotaId") or "?"
        others = quota.known(*_QUOTA, *_RECORDS, "ComputeQuotaVersion", "ActivationState")
        self._unknown(others, f"ComputeQuota {name}")
        target, config = quota.section("ComputeQuotaTarget"), quota.section("ComputeQuotaConfig")
        if target is None:
            quota.wrong(["ComputeQuotaTarget"], "is missing", 'write {"TeamName": "..."}')
            return
        self._unknown(target.known("TeamName", "FairShareWeight"), f"ComputeQuota {name}")
        team = target.text("TeamName")
        weight = target.whole("FairShareWeight", 0, 100)
        if team is None:
            if not target.has("TeamName"):
                target.wrong(["TeamName"], "is missing", "write the team's name")
            return
        if str(quota.data.get("Status")) in _GONE:
            self.notes.add(f"compute quotas with status {quota.data['Status']}", "left out", f"{name} of {team}")
            return
        if quota.choice("ActivationState", "Enabled", "Disabled") == "Disabled":
            self.notes.add(
                "a disabled compute quota",
                "left out, so the team's account is not governed: what it runs is neither limited nor preempted",
                f"{name} of {team}",
            )
            return
        if team in seen:
            target.wrong(
                ["TeamName"],
                f"{shown(team)} has a compute quota already, at {seen[team].line}",
                "a team has one compute quota",
            )
            return
        seen[team] = quota
        if config is None:
            quota.wrong(
                ["ComputeQuotaConfig"],
                "is missing: the listing does not say what the team gets",
                "give what aws sagemaker describe-compute-quota prints for it",
            )
            return
        holder = Holder(comment=f"ComputeQuota {shown(name)[1:-1]}", weight=weight or 0)
        self._unknown(
            config.known("ComputeQuotaResources", "ResourceSharingConfig", "PreemptTeamTasks"), f"ComputeQuota {name}"
        )
        holder.quota = self._amounts(config, "ComputeQuotaResources", team)
        self._sharing(config, holder, team)
        within = config.choice("PreemptTeamTasks", "LowerPriority", "Never")
        holder.rules["preempt_within_team"] = "never" if within == "Never" else "lower_priority"
        self.draft.teams[self.teams.of(team)] = holder

    def _amounts(self, config: Object, name: str, team: str) -> dict[str, int]:
        """What a list of resources has of each pool, and of CPUs and memory beside its GPUs."""
        amounts: dict[str, int] = {}
        unsaid: dict[str, str] = {}  # what HyperPod works out itself, for one of the entries of a pool
        for resource in config.list(name):
            others = resource.known(
                "InstanceType", "Count", "Accelerators", "VCpu", "MemoryInGiB", "AcceleratorPartition"
            )
            self._unknown(others, f"team {team}")
            instance = resource.text("InstanceType")
            if instance is None:
                if not resource.has("InstanceType"):
                    resource.wrong(["InstanceType"], "is missing", 'such as "ml.p5.48xlarge"')
                continue
            pools = list(self._amount(resource, instance))
            for pool, gpus in pools:
                amounts[pool] = amounts.get(pool, 0) + gpus
            if not pools:
                continue
            pool, _ = pools[-1]
            said = [beside for beside in _BESIDE if resource.has(_BESIDE[beside][0])]
            if said and len(pools) > 1:
                self.notes.add(
                    "VCpu and MemoryInGiB beside two kinds of accelerators",
                    f"taken as {pool}'s; jobs on the others are not limited in them",
                    team,
                )
            for beside, (field, unit) in _BESIDE.items():
                amount = self._beside(resource, field, unit, beside, team)
                if amount is None:
                    unsaid.setdefault(f"{pool}/{beside}", instance)
                else:
                    amounts[f"{pool}/{beside}"] = amounts.get(f"{pool}/{beside}", 0) + amount
        for one in sorted(unsaid.keys() & amounts.keys()):
            field = _BESIDE[one.partition("/")[2]][0]
            self.notes.add(
                f"{field} is not set for {unsaid[one]}, which is in the same pool as others that have it",
                "not limited: HyperPod works it out from what there is, which is not in the files",
                team,
            )
            del amounts[one]
        return amounts

    def _beside(self, resource: Object, name: str, unit: int, kind_of: str, team: str) -> int | None:
        """CPUs, or MiB of memory."""
        amount = resource.number(name)
        if amount is None:
            return None
        if amount > MOST:
            resource.wrong([name], f"{amount:g} is more than any cluster has", "write what there is")
            return None
        return rounded(Fraction(amount) * unit, kind_of, self.notes, team)

    def _amount(self, resource: Object, instance: str) -> Iterator[tuple[str, int]]:
        """Pools and GPUs; the last one is what CPUs and memory belong to."""
        count, gpus = resource.whole("Count", 0, MOST), resource.whole("Accelerators", 0, MOST)
        part = resource.section("AcceleratorPartition")
        if part is not None:
            yield from self._partition(part, instance)
        elif not any(map(resource.has, ("Count", "Accelerators", "VCpu", "MemoryInGiB", "AcceleratorPartition"))):
            resource.wrong((), "names no amount", "write Count, Accelerators, VCpu or MemoryInGiB")
        found = accelerators.of_instance_type(instance)
        each = self.per_instance.get(instance, found[1] if found else None)
        kind_of_gpu = found[0] if found else None
        if kind_of_gpu == "" and instance not in self.pools.options:
            self.notes.add(
                "instance types without accelerators",
                "left out: ours are quotas of GPUs; such nodes are Slurm's alone",
                instance,
            )
            return
        if part is not None and count is None and gpus is None:
            return
        pool = self.pools.of(instance, kind_of_gpu or None)
        if pool is None:
            resource.wrong(
                ["InstanceType"],
                f"{shown(instance)}: its GPUs are not known here",
                f"say which: --pool {instance}=TYPE:PARTITION, such as h100:gpu",
            )
        elif count is None:
            yield pool, gpus or 0
        elif each is None:
            resource.wrong(
                ["Count"],
                f"how many GPUs an {instance} has is not known here",
                f"say it: --gpus-per-instance {instance}=NUMBER",
            )
        elif gpus is not None and gpus != count * each:
            resource.wrong(
                ["Accelerators"], f"{gpus} does not agree with Count: {count} x {each} GPUs", "leave out one of them"
            )
        else:
            yield pool, count * each

    def _partition(self, part: Object, instance: str) -> Iterator[tuple[str, int]]:
        """A MIG profile is a GPU type of its own in Slurm."""
        part.known("Type", "Count")
        profile, count = part.text("Type"), part.whole("Count", 0, MOST)
        if profile is None or count is None:
            for name in ("Type", "Count"):
                if not part.has(name):
                    part.wrong([name], "is missing", 'such as {"Type": "mig-1g.10gb", "Count": 4}')
            return
        if not is_type(profile.removeprefix("mig-")):
            part.wrong(["Type"], f"{shown(profile)} is no MIG profile", 'such as "mig-1g.10gb"')
            return
        pool = self.pools.of(f"{instance}/{profile}", profile.removeprefix("mig-"))
        if pool is not None:
            yield pool, count

    def _sharing(self, config: Object, holder: Holder, team: str) -> None:
        sharing = config.section("ResourceSharingConfig")
        strategy, percent, absolute = None, None, dict[str, int]()
        if sharing is not None:
            self._unknown(sharing.known("Strategy", "BorrowLimit", "AbsoluteBorrowLimits"), f"team {team}")
            strategy = sharing.choice("Strategy", "LendAndBorrow", "Lend", "DontLend")
            if not sharing.has("Strategy"):
                sharing.wrong(["Strategy"], "is missing", "write LendAndBorrow, Lend or DontLend")
            percent = sharing.whole("BorrowLimit", 0, 10_000)
            absolute = self._amounts(sharing, "AbsoluteBorrowLimits", team)
        for resource in sorted(absolute):
            pool = resource.partition("/")[0]
            if holder.quota.get(pool) and resource not in holder.quota:
                field = _BESIDE[resource.partition("/")[2]][0]
                what = f"{field} in AbsoluteBorrowLimits, without a quota of it"
                self.notes.add(what, "not limited, as its quota is not", team)
            else:
                holder.quota.setdefault(resource, 0)
        for resource, quota in holder.quota.items():
            pool = resource.partition("/")[0]
            holder.lend[resource] = "none" if strategy == "DontLend" else "all"
            holder.borrow[resource] = "none"
            if strategy not in (None, "LendAndBorrow"):
                continue
            if resource in absolute:
                holder.borrow[resource] = number_limit(absolute[resource])
            elif pool in absolute and holder.quota[pool]:
                # HyperPod has it in the ratio of the accelerators.
                holder.borrow[resource] = number_limit(quota * absolute[pool] // holder.quota[pool])
            else:
                holder.borrow[resource] = self._borrow(_BORROW if percent is None else percent, quota, team)

    def _borrow(self, percent: int, quota: int, team: str) -> Limit:
        if percent == 0:
            return "none"
        if percent > _MOST_PERCENT:
            self.notes.add(f"a BorrowLimit above {_MOST_PERCENT} percent", "written as the number that it is", team)
            return number_limit(quota * percent // 100)
        return f"{percent}%"

    def _fill(self) -> None:
        """The pools that came of it; a team without a quota of GPUs is closed to all of them."""
        for name, (gres, partitions) in sorted(self.pools.made.items()):
            of = ", ".join(sorted(theirs for theirs, pool in self.pools.asked.items() if pool == name))
            self.draft.pools[name] = (gres, partitions, of)
        for name, team in self.draft.teams.items():
            if not team.quota:
                first = next(iter(self.draft.pools))
                team.quota, team.lend, team.borrow = {first: 0}, {first: "none"}, {first: "none"}
                self.notes.add("a team without accelerators", "it may use no GPUs here", name)
        for resource in sorted(self.draft.beside):
            pool, _, beside = resource.partition("/")
            for name, team in self.draft.teams.items():
                if team.quota.get(pool) and resource not in team.quota:
                    self.notes.add(
                        f"{_BESIDE[beside][0]} is not set, where others of pool {pool} have it",
                        "not limited: HyperPod works it out in the ratio of the accelerators; what they do not use "
                        "of it is not lent",
                        name,
                    )

    # -- the cluster ---------------------------------------------------------------------------------------

    def _cluster_policy(self, scheduler: Object | None) -> None:
        config = None
        if scheduler is None:
            self.notes.add(
                "no cluster policy is in the files",
                "HyperPod's defaults are taken: fair share, no priority "
                "classes; describe-cluster-scheduler-config prints it",
            )
        else:
            others = scheduler.known(*_SCHEDULER, *_RECORDS, "ClusterSchedulerConfigVersion")
            self._unknown(others, "the cluster policy")
            config = scheduler.section("SchedulerConfig")
            if config is None:
                scheduler.wrong(
                    ["SchedulerConfig"],
                    "is missing: the listing does not hold it",
                    "give what aws sagemaker describe-cluster-scheduler-config prints",
                )
        fair, idle = None, None
        if config is not None:
            self._unknown(config.known("PriorityClasses", "FairShare", "IdleResourceSharing"), "the cluster policy")
            fair = config.choice("FairShare", "Enabled", "Disabled")
            idle = config.choice("IdleResourceSharing", "Enabled", "Disabled")
            for one in config.list("PriorityClasses"):
                one.known("Name", "Weight")
                name, weight = one.text("Name"), one.whole("Weight", 0, 100)
                if name is None:
                    if not one.has("Name"):
                        one.wrong(["Name"], "is missing", "write the class's name")
                    continue
                if not one.has("Weight"):
                    one.wrong(["Weight"], "is missing", "write a weight from 0 to 100")
                mapped = self.classes.of(name)
                if mapped in self.draft.classes:
                    one.wrong(["Name"], f"{shown(name)} is given twice", "keep one of them")
                self.draft.classes[mapped] = (weight or 0, "" if mapped == name else name)
        if idle is None:
            self.notes.add(
                "IdleResourceSharing is not set",
                "taken as Disabled: capacity that no quota covers stays "
                "idle; sharing.lend_unallocated: true lends it",
            )
        self.draft.sharing = [
            ("idle", "first_come" if fair == "Disabled" else "fair_share", f"FairShare {fair or 'not set: Enabled'}"),
            (
                "lend_unallocated",
                "true" if idle == "Enabled" else "false",
                f"IdleResourceSharing {idle or 'not set'}: capacity that no quota covers",
            ),
        ]

    def _unknown(self, fields: Sequence[str], whose: str) -> None:
        for name in fields:
            self.notes.add(f"{name} is not known here", "left out", whose)
