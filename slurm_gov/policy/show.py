"""The resolved policy as a file again: what the numbers are once defaults and percentages are worked out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from slurm_gov.core.policy import BorrowPreempts, Policy, Preemption, Quota
from slurm_gov.policy import health_resolve


def as_data(policy: Policy) -> dict[str, Any]:
    """The policy as plain data in the file's own shape; ``loads(dumps(policy)) == policy``."""
    return {
        "mode": policy.mode.value,
        "pools": {
            name: {
                "partition": pool.partitions[0] if len(pool.partitions) == 1 else list(pool.partitions),
                "gres": pool.gres,
                **({} if pool.price is None else {"price": pool.price}),
            }
            for name, pool in policy.pools.items()
        },
        "priority_classes": dict(policy.priority_classes),
        "teams": {
            name: {
                **_quotas(team.quotas),
                **({} if team.cohort is None else {"cohort": team.cohort}),
                "fair_share_weight": team.fair_share_weight,
                "preempt_within_team": team.preempt_within_team.value,
                "reclaim": team.reclaim.value,
                "borrow_preempts": _borrow_preempts(team.borrow_preempts),
                **_if_set("min_runtime", team.min_runtime),
            }
            for name, team in policy.teams.items()
        },
        "cohorts": {
            name: {
                **_quotas(cohort.quotas),
                **({} if cohort.parent is None else {"parent": cohort.parent}),
                "fair_share_weight": cohort.fair_share_weight,
            }
            for name, cohort in policy.cohorts.items()
        },
        "sharing": {
            "idle": policy.idle.value,
            "lend_unallocated": policy.lend_unallocated,
            "rebalance": policy.rebalance.value,
            "protect_after": "none" if policy.protect_after is None else seconds(policy.protect_after),
            **_if_set("half_life", policy.half_life),
        },
        "preemption": {
            "grace": seconds(policy.preemption.grace),
            "signal": policy.preemption.signal,
            "min_runtime": seconds(policy.preemption.min_runtime),
            "requeue_delay": seconds(policy.preemption.requeue_delay) if policy.preemption.requeue_delay else "none",
            "if_not_requeueable": "cancel" if policy.preemption.cancel_unrequeueable else "never",
            "victims": policy.preemption.victims.value,
            **_preemption_rules(policy.preemption),
        },
        **({"health": health_resolve.as_data(policy.health)} if policy.health else {}),
    }


def dumps(policy: Policy) -> str:
    """The resolved policy as YAML."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    out = io.StringIO()
    yaml.dump(as_data(policy), out)
    return out.getvalue()


def seconds(value: float) -> str:
    """A duration in the file's notation: 30s, 1.5s."""
    return f"{value:f}".rstrip("0").rstrip(".") + "s"


def _if_set(name: str, value: float | None) -> dict[str, str]:
    return {} if value is None else {name: seconds(value)}


def _preemption_rules(rules: Preemption) -> dict[str, Any]:
    """What is left out where it is not set."""
    data: dict[str, Any] = {}
    if rules.classes:
        data["classes"] = {
            name: {**_if_set("min_runtime", one.min_runtime), "protected": one.protected}
            for name, one in rules.classes.items()
        }
    if (most := rules.max_preemptions) is not None:
        data["max_preemptions"] = {"count": most.count, "per": seconds(most.per)}
    if rules.checkpoint_file:
        data["checkpoint_file"] = rules.checkpoint_file
    return data


def limit(value: int | None, everything: str) -> int | str:
    """A lend or borrow limit in the file's notation."""
    return everything if value is None else "none" if value == 0 else value


def _borrow_preempts(rule: BorrowPreempts | None) -> int | str:
    if rule is None:
        return "none"
    return "lower_priority" if rule.max_priority is None else rule.max_priority


def _quotas(quotas: Mapping[str, Quota]) -> dict[str, Any]:
    lend = {pool: limit(q.lend, "all") for pool, q in quotas.items()}
    borrow = {pool: limit(q.borrow, "unlimited") for pool, q in quotas.items()}
    return {
        "quota": {pool: q.nominal for pool, q in quotas.items()},
        "lend": _one_for_all(lend),
        "borrow": _one_for_all(borrow),
    }


def _one_for_all(limits: dict[str, int | str]) -> Any:
    different = set(limits.values())
    # A number for all is of accelerators.
    if len(different) == 1 and not (any("/" in one for one in limits) and isinstance(next(iter(different)), int)):
        return different.pop()
    return limits
