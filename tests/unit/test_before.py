"""How Slurm was before slurm-gov: written down once, undone from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_gov.slurm.accounts import Account, Change, State, What
from slurm_gov.slurm.before import Before, undo, undo_commands

CAP = "gres/gpu:h100"


def state(*accounts: Account, qos: dict[str, int] | None = None) -> State:
    return State("c", {}, {one.name: one for one in accounts}, qos or {}, {}, {})


def test_the_first_change_is_remembered_also_by_the_next_daemon(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    before = Before(folder)
    before.remember_caps({"a": {CAP: 4}}, [{"a": {CAP: 8}}, {"b": {CAP: 16}}])
    before.remember_caps({"a": {CAP: 8}}, [{"a": {CAP: 12}}])
    again = Before(folder)
    assert again.known == {(What.CAP, "a", CAP): "4", (What.CAP, "b", CAP): "none"}
    again.forget()
    assert Before(folder).known == {}


def test_the_daemon_forgets_nothing_that_policy_apply_wrote_while_it_ran(tmp_path: Path) -> None:
    """Seen on a cluster: a cap that apply made, which the daemon then raised, was left after policy remove."""
    daemon, apply = Before(tmp_path), Before(tmp_path)
    apply.remember_caps({"a": {CAP: 6}}, [{"a": {"gres/gpu": 4}}])
    daemon.remember_caps({"a": {CAP: 6, "gres/gpu": 4}}, [{"a": {CAP: 8, "gres/gpu": 8}}])
    assert Before(tmp_path).known == {(What.CAP, "a", "gres/gpu"): "none", (What.CAP, "a", CAP): "6"}


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 2, "before": []}', '{"version": 1, "before": [{}]}'])
def test_a_file_that_cannot_be_read_is_not_taken_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "before.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        Before(tmp_path)
    assert (tmp_path / "before.json").read_text() == text


def test_everything_is_put_back_and_what_was_created_is_left_to_the_administrator(tmp_path: Path) -> None:
    changed = [
        Change(What.CREATE_QOS, "inference", "", "100"),
        Change(What.QOS_PRIORITY, "training", "7", "50"),
        Change(What.CREATE_ACCOUNT, "new", "", "root"),
        Change(What.CAP, "new", "none", "8", CAP),
        Change(What.CAP, "old", "4", "8", CAP),
        Change(What.CAP, "old", "none", "8", "gres/gpu"),
        Change(What.ALLOW_QOS, "old", "normal", "inference,normal,training"),
        Change(What.CAP, "gone", "1", "8", CAP),
    ]
    before = Before(tmp_path)
    before.remember(changed)
    known = Before(tmp_path).known
    now = state(
        Account("new", "root", {CAP: 8}),
        Account("old", "root", {CAP: 64, "gres/gpu": 64, "cpu": 10}, frozenset({"normal", "inference", "own"})),
        qos={"inference": 100, "training": 50, "normal": 0},
    )
    back, created = undo(known, now)
    assert [str(one) for one in back] == [
        "QOS training: priority 50 → 7",
        "account old: GrpTRES gres/gpu 64 → none",
        "account old: GrpTRES gres/gpu:h100 64 → 4",
        "account old: QOS inference,normal,own → normal,own",
    ]
    assert [str(one) for one in created] == ["QOS inference: delete", "account new: delete"]
    assert undo_commands(back, created, "c") == [
        "modify qos where name=training set priority=7",
        "modify account where name=old cluster=c set qos-=inference",
        "modify account where name=old cluster=c set GrpTRES=gres/gpu=-1,gres/gpu:h100=4",
        "delete account where name=new cluster=c",
        "delete qos where name=inference",
    ]


def test_nothing_is_to_be_done_when_all_is_as_it_was() -> None:
    known = {(What.CAP, "a", CAP): "4", (What.QOS_PRIORITY, "q", ""): "7", (What.ALLOW_QOS, "a", "q"): ""}
    assert undo(known, state(Account("a", "root", {CAP: 4}, frozenset({"normal"})), qos={"q": 7})) == ([], [])
