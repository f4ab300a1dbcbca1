"""Accounts and users of a sandbox: who may submit, and for whom."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable

ANOTHER = "games"
"""The second user of a sandbox of root's; not nobody, whom Slurm 26.05 refuses."""


def everybody(extra: Iterable[str]) -> list[str]:
    """The users of a sandbox: the caller, for root also ANOTHER, and those that were asked for."""
    names = [pwd.getpwuid(os.geteuid()).pw_name]
    if os.geteuid() == 0:
        names.append(ANOTHER)
    return list(dict.fromkeys([*names, *extra]))


def create_cluster(cluster: str) -> list[str]:
    """The line for sacctmgr without which slurmctld would not start."""
    return [f"add cluster {cluster}"]


def create_accounts(accounts: Iterable[str]) -> list[str]:
    """Lines for sacctmgr that create accounts."""
    names = ",".join(accounts)
    return [f"add account {names}"] if names else []


def create_users(users: Iterable[str], accounts: Iterable[str]) -> list[str]:
    """Lines for sacctmgr that let users submit to every account, by default to the first."""
    accounts = list(accounts)
    if not accounts:
        return []
    names = ",".join(users)
    lines = [f"add user {names} account={','.join(accounts)} defaultaccount={accounts[0]}"]
    if os.geteuid() == 0:
        lines.append("modify user root set adminlevel=Administrator")
    return lines
