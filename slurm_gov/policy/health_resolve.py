"""What the policy file's ``health:`` section stands for, and how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slurm_gov.core.health import (
    Effect,
    FaultJobs,
    FaultRule,
    Health,
    Lemons,
    Moves,
    PoolHealth,
    Provider,
    Repair,
    Share,
    Verification,
)
from slurm_gov.core.policy import frozen
from slurm_gov.policy.health import ClassJobRules, FaultRules, HealthRules, JobRules, ProviderRules


def resolve(rules: HealthRules | None, pools: Mapping[str, object], mode: str) -> Health | None:
    """What the section stands for. Only in mode ``enforce`` anything is done to a node that nobody ordered."""
    if rules is None:
        return None
    providers = {
        name: Provider(
            name,
            one.kind,
            one.time_limit,
            max(1, one.attempts),
            one.backoff,
            frozenset(map(Repair, one.operations)),
            frozen(_options(one)),
        )
        for name, one in rules.providers.items()
    }
    return Health(
        hands_off="" if mode == "enforce" else f"mode is {mode}",
        pools=frozen(
            {
                pool: PoolHealth(
                    automatic=_of(rules.recovery, pool, "automatic") == "automatic",
                    provider=_of(rules.provider, pool, "slurm"),
                    spares=rules.spares.get(pool, ()),
                    spares_off=rules.spares_kept == "powered_down",
                )
                for pool in pools
            }
        ),
        providers=frozen({"slurm": Provider("slurm", "slurm")} | providers),
        faults=frozen({name: _rule(one) for name, one in rules.faults.items()}),
        verifications=tuple(
            Verification(one.name, one.command, one.where == "node", one.time_limit) for one in rules.verify
        ),
        breaker=rules.breaker,
        rack=rules.rack or "",
        max_away=rules.max_away,
        jobs=FaultJobs(
            moves=_moves(rules.jobs, rules.jobs),
            classes=frozen({name: _moves(one, rules.jobs) for name, one in rules.jobs.classes.items()}),
            restarts=rules.jobs.max_restarts,
            end_unrequeueable=rules.jobs.if_not_requeueable == "end",
            same_xid=rules.jobs.same_xid,
        ),
        lemons=Lemons(rules.lemons.within / 86400, rules.lemons.faults, rules.lemons.exclude),
        confirm=rules.confirm,
        recover=rules.recover,
        silence_after=rules.silence_after,
        lost_after=rules.lost_after,
        report_within=rules.report_within,
        history=rules.history,
        reboots=rules.reboots,
    )


def _of(value: str | dict[str, str], pool: str, otherwise: str) -> str:
    return value.get(pool, otherwise) if isinstance(value, dict) else value


def _options(one: ProviderRules) -> dict[str, str | tuple[str, ...]]:
    given = {"command": one.command, "container": one.container, "socket": one.socket}
    return {name: value for name, value in given.items() if value is not None}


def _rule(one: FaultRules) -> FaultRule:
    return FaultRule(
        Effect(one.effect) if one.effect else None,
        Repair(one.repair) if one.repair else None,
        one.confirm,
        one.recover,
    )


def _moves(mine: JobRules | ClassJobRules, general: JobRules) -> Moves:
    draining, suspect = mine.draining or general.draining, mine.suspect or general.suspect
    grace = general.grace if mine.grace is None else mine.grace
    # A draining node is worse than a suspect one.
    return Moves("checkpoint" in (draining, suspect), suspect == "checkpoint", grace)


def as_data(health: Health | None) -> dict[str, Any]:
    """The section in the file's own shape; empty if there is none."""
    if health is None:
        return {}
    providers = {
        name: {"kind": one.kind}
        | {key: list(value) if isinstance(value, tuple) else value for key, value in one.options.items()}
        | {"time_limit": _seconds(one.time_limit), "attempts": one.attempts, "backoff": _seconds(one.backoff)}
        | {"operations": [str(repair) for repair in (Repair.REBOOT, Repair.REPLACE) if repair in one.can]}
        for name, one in health.providers.items()
    }
    return {
        "recovery": {pool: "automatic" if one.automatic else "none" for pool, one in health.pools.items()},
        "provider": {pool: one.provider for pool, one in health.pools.items()},
        "providers": providers,
        "spares": {pool: list(one.spares) for pool, one in health.pools.items() if one.spares},
        "spares_kept": "powered_down" if any(one.spares_off for one in health.pools.values()) else "drained",
        "faults": {name: _rule_data(one) for name, one in health.faults.items()},
        "confirm": _seconds(health.confirm),
        "recover": _seconds(health.recover),
        "breaker": _share_data(health.breaker),
        **({"rack": health.rack} if health.rack else {}),
        "max_away": _share_data(health.max_away),
        "jobs": {
            **_moves_data(health.jobs.moves),
            "classes": {name: _moves_data(one) for name, one in health.jobs.classes.items()},
            "max_restarts": health.jobs.restarts,
            "if_not_requeueable": "end" if health.jobs.end_unrequeueable else "finish",
            "same_xid": health.jobs.same_xid,
        },
        "verify": [
            {
                "name": one.name,
                "command": list(one.command),
                "where": "node" if one.in_reservation else "controller",
                "time_limit": _seconds(one.time_limit),
            }
            for one in health.verifications
        ],
        "report_within": _seconds(health.report_within),
        "lost_after": _seconds(health.lost_after),
        "silence_after": _seconds(health.silence_after),
        "reboots": health.reboots,
        "history": _seconds(health.history),
        "lemons": {
            "faults": health.lemons.faults,
            "within": _seconds(health.lemons.days * 86400),
            "exclude": health.lemons.exclude,
        },
    }


def _moves_data(moves: Moves) -> dict[str, str]:
    return {
        "draining": "checkpoint" if moves.draining else "finish",
        "suspect": "checkpoint" if moves.suspect else "finish",
        "grace": _seconds(moves.grace),
    }


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.12g}s"


def _share_data(share: Share) -> int | str:
    return f"{share.percent}%" if share.number is None else share.number


def _rule_data(rule: FaultRule) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if rule.effect is not None:
        data["effect"] = str(rule.effect)
    if rule.repair is not None:
        data["repair"] = str(rule.repair)
    if rule.confirm is not None:
        data["confirm"] = f"{rule.confirm:g}s"
    if rule.recover is not None:
        data["recover"] = f"{rule.recover:g}s"
    return data
