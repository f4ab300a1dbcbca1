"""What a policy needs in Slurm's accounts and QOS, and what of it is missing. Pure: state in, changes out.

A team is an account, a priority class a QOS of that name with its weight as Priority, and a team's guarantee
is held by its account's GrpTRES: never below its quota. Caps above the quota are the governor's and are left
alone.
Reading this state and making the changes: ``slurm_gov.slurm.accounts_commands``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType

from slurm_gov.core.caps import tres_caps, ungoverned
from slurm_gov.core.policy import Mode, Policy, Pool

ROOT = "root"


@dataclass(frozen=True, slots=True)
class Account:
    """One account of this cluster. ``caps`` is its own GrpTRES, TRES in lower case to amount.

    ``qos`` is what its jobs may name, inherited ones included.
    """

    name: str
    parent: str
    caps: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    qos: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Partition:
    """Who may use a partition, as slurmctld shows it: names in lower case, None = everybody."""

    name: str
    allow_accounts: frozenset[str] | None = None
    deny_accounts: frozenset[str] = frozenset()
    allow_qos: frozenset[str] | None = None
    deny_qos: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class State:
    """What Slurm has. ``config`` is ``scontrol show config``; ``nodes`` is node to partitions and GRES by TRES.

    ``own_qos`` are users who have a QOS list of their own and so do not inherit their account's:
    (user, account, QOS). ``accounts`` is empty if slurmdbd does not know the cluster.
    """

    cluster: str
    config: Mapping[str, str]
    accounts: Mapping[str, Account]
    qos: Mapping[str, int]
    partitions: Mapping[str, Partition]
    nodes: Mapping[str, tuple[frozenset[str], Mapping[str, int]]]
    own_qos: tuple[tuple[str, str, frozenset[str]], ...] = ()

    def gres_in(self, partitions: Iterable[str]) -> dict[str, int]:
        """All GRES on the nodes of these partitions, each node counted once: ``{"gres/gpu:h100": 64}``."""
        wanted = set(partitions)
        found: dict[str, int] = {}
        for where, gres in self.nodes.values():
            if where & wanted:
                for name, count in gres.items():
                    found[name] = found.get(name, 0) + count
        return found

    def above(self, account: str) -> Iterator[Account]:
        """The accounts above an account, nearest first."""
        seen = {account}
        current = self.accounts.get(account)
        while current and current.parent and current.parent not in seen:
            seen.add(current.parent)
            current = self.accounts.get(current.parent)
            if current:
                yield current


class What(StrEnum):
    """The kinds of change, in the order in which they are made."""

    CREATE_QOS = "create QOS"
    QOS_PRIORITY = "QOS priority"
    CREATE_ACCOUNT = "create account"
    CAP = "cap"
    ALLOW_QOS = "allow QOS"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not yet as the policy wants it. ``setting`` is a TRES for a cap, else empty."""

    what: What
    name: str
    before: str
    after: str
    setting: str = ""

    def __str__(self) -> str:
        match self.what:
            case What.CREATE_QOS | What.CREATE_ACCOUNT if not self.after:
                return f"{self.what.value.removeprefix('create ')} {self.name}: delete"
            case What.CREATE_QOS:
                return f"QOS {self.name}: create, priority {self.after}"
            case What.QOS_PRIORITY:
                return f"QOS {self.name}: priority {self.before} → {self.after}"
            case What.CREATE_ACCOUNT:
                return f"account {self.name}: create, below {self.after}"
            case What.ALLOW_QOS:
                return f"account {self.name}: QOS {self.before or 'none'} → {self.after}"
            case What.CAP:
                return f"account {self.name}: GrpTRES {self.setting} {self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What stands in a policy's way in this cluster: an error, or only a warning; and what helps."""

    message: str
    remedy: str
    error: bool = True

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


def changes(policy: Policy, state: State) -> list[Change]:
    """What must change in Slurm so that the policy holds, in the order in which it is to be done.

    Nothing is ever removed or lowered: a cap is written only where there is none or it is below the quota.
    """
    found: list[Change] = []
    for name, weight in policy.priority_classes.items():
        if name not in state.qos:
            found.append(Change(What.CREATE_QOS, name, "", str(weight)))
        elif state.qos[name] != weight:
            found.append(Change(What.QOS_PRIORITY, name, str(state.qos[name]), str(weight)))
    root = state.accounts.get(ROOT, Account(ROOT, ""))
    quotas = {name: {p: quota.nominal for p, quota in team.quotas.items()} for name, team in policy.teams.items()}
    guarantees = tres_caps(policy, quotas, ungoverned(policy, (gres for _, gres in state.nodes.values())), {})
    for name in policy.teams:
        account = state.accounts.get(name)
        if account is None:
            found.append(Change(What.CREATE_ACCOUNT, name, "", ROOT))
            account = Account(name, ROOT, qos=root.qos)
        # In the mode "observe" Slurm stays as it is in all that limits anybody.
        for tres, guarantee in guarantees[name].items() if policy.mode is not Mode.OBSERVE else ():
            cap = account.caps.get(tres)
            if cap is None or cap < guarantee:
                found.append(Change(What.CAP, name, "none" if cap is None else str(cap), str(guarantee), tres))
        missing = [qos for qos in policy.priority_classes if qos not in account.qos]
        if missing:
            before = ",".join(sorted(account.qos))
            found.append(Change(What.ALLOW_QOS, name, before, ",".join(sorted({*account.qos, *missing}))))
    order = list(What)
    return sorted(found, key=lambda change: order.index(change.what))


def commands(todo: Iterable[Change], cluster: str) -> list[str]:
    """Lines for sacctmgr that make the changes, as few as possible: a line costs up to 0.3 s on Slurm 22.05.

    A new account gets its caps in the same line, so it is never without. All names in a policy are plain
    (letters, digits, ``_ - .``), so nothing needs quoting.
    """
    todo = list(todo)
    caps: dict[str, str] = {}
    for change in todo:
        if change.what is What.CAP:
            one = f"{change.setting}={change.after}"
            caps[change.name] = f"{caps[change.name]},{one}" if change.name in caps else f"GrpTRES={one}"
    lines: dict[tuple[int, str, str], list[str]] = {}
    for change in todo:
        match change.what:
            case What.CREATE_QOS:
                verb, setting = "add qos", f"priority={change.after}"
            case What.QOS_PRIORITY:
                verb, setting = "modify qos", f"set priority={change.after}"
            case What.CREATE_ACCOUNT:
                verb, setting = "add account", f"parent={change.after} {caps.pop(change.name, '')}".strip()
            case What.CAP:
                if change.name not in caps:  # already in a line
                    continue
                verb, setting = "modify account", f"set {caps.pop(change.name)}"
            case What.ALLOW_QOS:
                added = sorted(set(change.after.split(",")) - set(change.before.split(",")))
                verb, setting = "modify account", f"set qos+={','.join(added)}"
        lines.setdefault((list(What).index(change.what), verb, setting), []).append(change.name)
    return [
        _line(verb, names[start : start + 50], setting, cluster)
        for (_, verb, setting), names in sorted(lines.items(), key=lambda item: item[0][0])
        for start in range(0, len(names), 50)
    ]


def _line(verb: str, names: list[str], setting: str, cluster: str) -> str:
    where = "where " if verb.startswith("modify") else ""
    of_cluster = f" cluster={cluster}" if verb.endswith("account") else ""
    return f"{verb} {where}name={','.join(names)}{of_cluster} {setting}"


def check(policy: Policy, state: State) -> list[Finding]:
    """Everything in this cluster that keeps the policy from holding, errors first."""
    findings = [
        *_accounting(policy, state),
        *(finding for pool in policy.pools.values() for finding in _pool(pool, policy, state)),
        *_hierarchy(policy, state),
        *_admission(policy, state),
        *_users(policy, state),
        *_scheduling(policy, state),
    ]
    return sorted(findings, key=lambda finding: not finding.error)


def _words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",") if word.strip()}


def _accounting(policy: Policy, state: State) -> Iterator[Finding]:
    storage = state.config.get("AccountingStorageType", "").replace("(null)", "")
    if storage != "accounting_storage/slurmdbd":
        yield Finding(
            f"AccountingStorageType is {storage or 'not set'}, and accounts and caps need slurmdbd",
            "set up slurmdbd and AccountingStorageType=accounting_storage/slurmdbd in slurm.conf",
        )
        return
    if not state.accounts:
        yield Finding(
            f"slurmdbd does not know the cluster {state.cluster}",
            f"run: sacctmgr add cluster {state.cluster}, and restart slurmctld",
        )
    wanted: tuple[str, ...] = ("associations", "limits", "qos")
    have = _words(state.config.get("AccountingStorageEnforce", ""))
    lacking = [word for word in wanted if word not in have]
    if lacking:
        wanted = (*wanted, *sorted(have - {*wanted, "none", "(null)"}))
        yield Finding(
            f"AccountingStorageEnforce lacks {', '.join(lacking)}, so Slurm holds no caps",
            f"set AccountingStorageEnforce={','.join(wanted)} in slurm.conf and restart slurmctld",
        )
    tracked = _words(state.config.get("AccountingStorageTRES", ""))
    untracked = [tres for tres in _capped(policy) if tres not in tracked]
    if untracked:
        added = ",".join(dict.fromkeys([*(p.untyped_tres for p in policy.pools.values()), *untracked]))
        yield Finding(
            f"AccountingStorageTRES lacks {', '.join(untracked)}, so Slurm cannot cap it",
            f"add AccountingStorageTRES={added} to slurm.conf and restart slurmctld",
        )


def _capped(policy: Policy) -> list[str]:
    """Every TRES that the governor caps: each pool's, then the untyped ones."""
    pools = policy.pools.values()
    return list(dict.fromkeys([*(pool.tres for pool in pools), *(pool.untyped_tres for pool in pools)]))


def _pool(pool: Pool, policy: Policy, state: State) -> Iterator[Finding]:
    missing = [name for name in pool.partitions if name not in state.partitions]
    for name in missing:
        near = get_close_matches(name, state.partitions, n=1)
        known = ", ".join(sorted(state.partitions)) or "none"
        yield Finding(
            f"pool {pool.name}: this cluster has no partition {name}",
            f"did you mean {near[0]}?" if near else f"its partitions: {known}",
        )
    if len(missing) == len(pool.partitions):
        return
    there = state.gres_in(pool.partitions)
    names = {name.lower(): name.removeprefix("gres/") for name in there}
    total = there.get(f"gres/{pool.gres}", 0)
    where = f"partition {pool.partitions[0]}"
    if len(pool.partitions) > 1:
        where = f"partitions {', '.join(pool.partitions)}"
    if not total:
        if pool.tres in names:
            remedy = f"Slurm tells small letters from capitals there: write {names[pool.tres]}"
        elif pool.untyped_tres in there:
            remedy = (
                "its nodes have them without a type: give Type= in gres.conf, and the type in Gres= in slurm.conf"
            )
        else:
            remedy = f"what is there: {', '.join(sorted(names.values())) or 'no GRES at all'}"
        yield Finding(f"pool {pool.name}: no node of {where} has {pool.gres}", remedy)
        return
    quotas = sum(team.quotas[pool.name].nominal for team in policy.teams.values())
    quotas += sum(cohort.quotas[pool.name].nominal for cohort in policy.cohorts.values())
    if quotas > total:
        yield Finding(
            f"pool {pool.name}: the quotas add up to {quotas}, but {where} has {total} {pool.gres}",
            "not every team can have its quota at the same time",
            error=False,
        )


def _hierarchy(policy: Policy, state: State) -> Iterator[Finding]:
    """Account limits hold for everything below: nothing above a team may cap what the team was promised."""
    for name in policy.teams:
        for above in state.above(name):
            if above.name in policy.teams:
                yield Finding(
                    f"team {name} is below team {above.name} in Slurm, so the cap of {above.name} holds for both",
                    "teams must stand side by side: make only one of them a team, or move one: "
                    f"{_modify_account(state, name)} parent={ROOT}",
                )
                continue
            if caps := _caps_of(above, policy):
                yield Finding(
                    f"account {above.name}, above team {name}, has a cap of its own: {_setting(caps)}",
                    "it limits the team whatever its quota; to lift it: "
                    f"{_modify_account(state, above.name)} GrpTRES={_setting(dict.fromkeys(caps, -1))}",
                    error=False,
                )
    ours = _above_teams(policy, state) | set(policy.teams) | {ROOT}
    for account in state.accounts.values():
        if account.name in ours or any(above.name in policy.teams for above in state.above(account.name)):
            continue
        if caps := _caps_of(account, policy):
            yield Finding(
                f"account {account.name} is no team of this policy but has a cap: {_setting(caps)}",
                "if it once was one, lift the cap: "
                f"{_modify_account(state, account.name)} GrpTRES={_setting(dict.fromkeys(caps, -1))}",
                error=False,
            )


def _caps_of(account: Account, policy: Policy) -> dict[str, int]:
    """An account's caps on what the governor caps."""
    return {tres: account.caps[tres] for tres in _capped(policy) if tres in account.caps}


def _setting(caps: Mapping[str, int]) -> str:
    return ",".join(f"{tres}={amount}" for tres, amount in caps.items())


def _modify_account(state: State, name: str) -> str:
    return f"sacctmgr modify account where name={name} cluster={state.cluster} set"


def _above_teams(policy: Policy, state: State) -> set[str]:
    return {above.name for name in policy.teams for above in state.above(name)}


def _admission(policy: Policy, state: State) -> Iterator[Finding]:
    """Teams and priority classes that a pool's partition turns away."""
    for pool in policy.pools.values():
        for partition in (state.partitions[name] for name in pool.partitions if name in state.partitions):
            teams = [name for name, team in policy.teams.items() if team.quotas[pool.name].nominal]
            for kind, names, allow, deny in (
                ("Accounts", teams, partition.allow_accounts, partition.deny_accounts),
                ("Qos", policy.priority_classes, partition.allow_qos, partition.deny_qos),
            ):
                shut = [n for n in names if n in deny or (allow is not None and n not in allow)]
                if shut:
                    setting = f"{'Deny' if allow is None else 'Allow'}{kind} of partition {partition.name}"
                    yield Finding(
                        f"pool {pool.name}: {setting} keeps out {', '.join(shut)}",
                        "change it in slurm.conf",
                        error=False,
                    )


def _users(policy: Policy, state: State) -> Iterator[Finding]:
    """Users with a QOS list of their own do not get what their account is given."""
    for name, classes in _lacking_users(policy, state).items():
        user, account = name
        yield Finding(
            f"user {user} of account {account} has a QOS list of its own without {', '.join(classes)}",
            f"run: sacctmgr modify user where name={user} account={account} cluster={state.cluster} "
            f"set qos+={','.join(classes)}",
            error=False,
        )


def _lacking_users(policy: Policy, state: State) -> dict[tuple[str, str], list[str]]:
    lacking = {}
    for user, account, qos in state.own_qos:
        if {account, *(a.name for a in state.above(account))} & set(policy.teams):
            missing = [name for name in policy.priority_classes if name not in qos]
            if missing:
                lacking[user, account] = missing
    return lacking


def _scheduling(policy: Policy, state: State) -> Iterator[Finding]:
    config = state.config
    if policy.priority_classes:
        if config.get("PriorityType") == "priority/basic":
            yield Finding(
                "PriorityType is priority/basic, so Slurm does not order jobs by priority class",
                "set PriorityType=priority/multifactor and PriorityWeightQOS=1000000 in slurm.conf",
                error=False,
            )
        elif config.get("PriorityWeightQOS") == "0":
            yield Finding(
                "PriorityWeightQOS is 0, so Slurm does not order jobs by priority class",
                "set PriorityWeightQOS=1000000 in slurm.conf",
                error=False,
            )
    if config.get("JobRequeue") == "0":
        yield Finding(
            "JobRequeue is 0, so only jobs submitted with --requeue can be preempted",
            "set JobRequeue=1 in slurm.conf",
            error=False,
        )
    preempt = config.get("PreemptType", "preempt/none")
    if preempt not in ("preempt/none", "(null)"):
        yield Finding(
            f"PreemptType is {preempt}, so Slurm preempts jobs by its own rules too",
            "set PreemptType=preempt/none in slurm.conf",
            error=False,
        )
