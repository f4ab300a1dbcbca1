"""Who may do what in Slurm: users, accounts, and what a submission is judged by beside the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """A Slurm user: the accounts it may charge, each with the QOS allowed there, and its default account.

    ``admin`` is true for operators and administrators.
    """

    name: str
    uid: int
    default_account: str
    accounts: Mapping[str, frozenset[str]]
    admin: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the plugin's questions are answered from, beside the policy: who is who, and what nodes there are.

    ``parents``: account to parent account. ``default_partition`` is empty if the cluster has none.
    """

    users: Mapping[int, User]
    parents: Mapping[str, str]
    default_partition: str
    slurm_uid: int
