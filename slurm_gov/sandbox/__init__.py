"""A private, real Slurm cluster on this machine: for tests, demonstrations and trying a policy."""

from slurm_gov.sandbox.cluster import Sandbox
from slurm_gov.sandbox.config import Pool, SandboxConfig
from slurm_gov.sandbox.errors import SandboxError

__all__ = ["Pool", "Sandbox", "SandboxConfig", "SandboxError"]
