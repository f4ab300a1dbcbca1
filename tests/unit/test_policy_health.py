"""The policy's health section: what it stands for, and what it can get wrong."""

from __future__ import annotations

import pytest

from slurm_gov.core.health import Effect, Health, Moves, Repair, Share
from slurm_gov.policy import PolicyError, dumps, loads

HEAD = """\
pools:
  h100: {partition: gpu, gres: "gpu:h100"}
  a100: {partition: old, gres: "gpu:a100"}
priority_classes: {training: 50, inference: 100}
teams:
  research: {quota: {h100: 8, a100: 8}, fair_share_weight: 1}
"""
WHOLE = """\
health:
  recovery: {h100: automatic, a100: none}
  provider: {h100: power, a100: boxes}
  providers:
    power: {kind: command, command: [/usr/local/sbin/power, --rack, r1], time_limit: 5m, attempts: 2, backoff: 10s}
    boxes: {kind: docker, container: "gpu-{node}", socket: "unix:///run/docker.sock"}
    asked: {kind: mqtt, operations: reboot}
  spares: {h100: [n63, n64]}
  spares_kept: powered_down
  faults:
    xid 79: {effect: fail, repair: replace}
    disk: {confirm: 1m, recover: 2m}
    gpu_thermal: {effect: ignore}
  breaker: 10%
  max_away: 3
  rack: "(r[0-9]+)n"
  jobs:
    draining: checkpoint
    grace: 1m
    max_restarts: 2
    if_not_requeueable: end
    same_xid: 4
    classes: {training: {suspect: checkpoint, grace: 5m}, inference: {draining: finish}}
  verify:
    - {name: nccl, command: /usr/local/sbin/nccl, where: node, time_limit: 20m}
  silence_after: 10m
  lemons: {faults: 3, within: 7d, exclude: true}
"""


def health(text: str) -> Health:
    found = loads(HEAD + text).health
    assert found is not None
    return found


def test_without_the_section_nothing_is_done() -> None:
    assert loads(HEAD).health is None
    assert health("health: {}\n").breaker == Share(percent=20)
    assert loads(HEAD + "health:\n").health is None, "all of it commented out"


def test_what_it_stands_for() -> None:
    found = health(WHOLE)
    assert [(name, pool.automatic, pool.provider) for name, pool in found.pools.items()] == [
        ("h100", True, "power"), ("a100", False, "boxes")]  # fmt: skip
    power = found.providers["power"]
    assert (power.time_limit, power.attempts, power.options["command"]) == (
        300.0, 2, ("/usr/local/sbin/power", "--rack", "r1"))  # fmt: skip
    assert found.faults["xid 79"].effect is Effect.FAIL and found.faults["xid 79"].repair is Repair.REPLACE
    assert (found.breaker.of(64), found.breaker.of(3), found.max_away.of(64)) == (6, 1, 3)
    assert found.providers["asked"].can == {Repair.REBOOT} and power.can == {Repair.REBOOT, Repair.REPLACE}
    assert found.pools["h100"].spares_off and found.pools["h100"].spares == ("n63", "n64")
    assert found.jobs.of("training") == Moves(True, True, 300.0)
    assert found.jobs.of("inference") == Moves(False, False, 60.0)
    assert found.jobs.of("normal") == Moves(True, False, 60.0)
    assert found.verifications[0].in_reservation and found.silence_after == 600.0 and found.lemons.days == 7


@pytest.mark.parametrize("text", ["health: {}\n", WHOLE], ids=["defaults", "everything"])
def test_what_is_shown_is_the_same_policy(text: str) -> None:
    policy = loads(HEAD + text)
    assert loads(dumps(policy)) == policy


@pytest.mark.parametrize("mode", ["observe", "caps"])
def test_only_in_mode_enforce_it_acts_by_itself(mode: str) -> None:
    found = loads(f"mode: {mode}\n{HEAD}health: {{}}\n").health
    assert found is not None and mode in found.hands_off


WRONG = {
    "health: {recovery: {h200: none}}": ("health.recovery.h200: is no pool of this file", "h100"),
    "health: {recovery: off}": ("health.recovery", "automatic or none"),
    "health: {provider: powr, providers: {power: {kind: mqtt}}}": ('there is no provider "powr"', "power"),
    "health: {providers: {p: {kind: command}}}": ("needs command", "/usr/local/sbin"),
    "health: {providers: {p: {kind: command, command: [power]}}}": ("is no absolute path", ""),
    "health: {providers: {p: {kind: mqtt, container: x}}}": ("is for kind docker", "remove it"),
    "health: {providers: {p: {kind: doker}}}": ('"doker" is not known here', "docker"),
    "health: {breaker: 0%}": ("health.breaker", "1% to 100%"),
    "health: {max_away: many}": ("health.max_away", "a number of nodes"),
    "health: {rack: '('}": ("is no regular expression", "topology"),
    "health: {faults: {xid79: {effect: fail}}}": ("is no fault", '"xid 79"'),
    "health: {faults: {xid 79: {effect: explode}}}": (
        'health.faults."xid 79".effect',
        "ignore, suspect, drain or fail",
    ),
    "health: {spares: {h100: ['n[1-2]']}}": ("is no node name", "single nodes"),
    "health: {jobs: {grace: soon}}": ("health.jobs.grace", "30s"),
    "health: {jobs: {classes: {trainig: {draining: finish}}}}": ("is no priority class of this file", "training"),
    "health: {jobs: {classes: {training: {draining: soon}}}}": (
        "health.jobs.classes.training.draining",
        "finish or checkpoint",
    ),
    "health: {spares_kept: cold}": ("health.spares_kept", "drained or powered_down"),
    "health: {providers: {p: {kind: mqtt, operations: [repair]}}}": ("operations", "a list of reboot and replace"),
    "health: {silence_after: -1}": ("health.silence_after", "duration"),
    "health: {repair: reboot}": ("there is no such setting", ""),
}


@pytest.mark.parametrize(("text", "said"), WRONG.items())
def test_mistakes_are_named_with_their_remedy(text: str, said: tuple[str, str]) -> None:
    with pytest.raises(PolicyError) as refused:
        loads(f"{HEAD}{text}\n")
    (problem,) = refused.value.problems
    assert said[0] in str(problem) and said[1] in str(problem) and problem.line == 7
