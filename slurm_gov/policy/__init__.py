"""What the administrator writes: the policy file's schema, its loading and its checking.

``load(path)`` gives the resolved, frozen ``slurm_gov.core.policy.Policy``, or raises ``PolicyError`` with
every mistake in the file.
"""

from slurm_gov.policy.load import Checked, check, check_text, load, loads
from slurm_gov.policy.problems import PolicyError, Problem
from slurm_gov.policy.show import as_data, dumps

__all__ = [
    "Checked",
    "PolicyError",
    "Problem",
    "as_data",
    "check",
    "check_text",
    "dumps",
    "load",
    "loads",
]
