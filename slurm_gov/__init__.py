"""slurm-gov: guaranteed GPU quotas, lending, borrowing and reclaim for Slurm clusters."""

__version__ = "0.1.0"
__date__ = "2026-11-26"
"""When this version was made; manual pages bear it."""
