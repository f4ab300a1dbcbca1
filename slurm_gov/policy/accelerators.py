"""Which GPUs are in what: instance types of SageMaker HyperPod, and names of GPUs in labels.

Numbers per instance as AWS gives them (aws/sagemaker-hyperpod-cli, instance pages of EC2).
"""

from __future__ import annotations

import re

_ONE_TO_EIGHT = {
    "xlarge": 1,
    "2xlarge": 1,
    "4xlarge": 1,
    "8xlarge": 1,
    "16xlarge": 1,
    "12xlarge": 4,
    "24xlarge": 4,
    "48xlarge": 8,
}
_FAMILIES: dict[str, tuple[str, dict[str, int]]] = {
    "g4dn": ("t4", {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 4, "16xlarge": 1}),
    "g5": ("a10g", _ONE_TO_EIGHT),
    "g6": ("l4", _ONE_TO_EIGHT),
    "gr6": ("l4", {"4xlarge": 1, "8xlarge": 1}),
    "g6e": ("l40s", _ONE_TO_EIGHT),
    "g7": (
        "rtx_pro_4500",
        {"2xlarge": 1, "4xlarge": 1, "8xlarge": 2, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8},
    ),
    "g7e": (
        "rtx_pro_6000",
        {"2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 2, "24xlarge": 4, "48xlarge": 8},
    ),
    "p4d": ("a100", {"24xlarge": 8}),
    "p4de": ("a100", {"24xlarge": 8}),
    "p5": ("h100", {"48xlarge": 8, "4xlarge": 1}),
    "p5e": ("h200", {"48xlarge": 8}),
    "p5en": ("h200", {"48xlarge": 8}),
    "p6-b200": ("b200", {"48xlarge": 8}),
    "p6-b300": ("b300", {"48xlarge": 8}),
    "p6e-gb200": ("gb200", {"36xlarge": 4}),
    "trn1": ("trn1", {"32xlarge": 16}),
    "trn1n": ("trn1", {"32xlarge": 16}),
    "trn2": ("trn2", {"3xlarge": 1, "48xlarge": 16}),
}
_WITHOUT = re.compile(r"(c|m|r|t|i)[0-9][a-z]*")  # general purpose, compute, memory, storage

_NAMES = (
    "gb300 gb200 b300 b200 gh200 h200 h100 h800 h20 a100 a800 a40 a30 a16 a10g a10 a2 l40s l40 l4 t4 v100 p100 p40 "
    "p4 k80 mi100 mi210 mi250 mi250x mi300a mi300x mi325x mi350x mi355x gaudi gaudi2 gaudi3 trn1 trn2"
)
_KNOWN = frozenset(_NAMES.split())


def of_instance_type(name: str) -> tuple[str, int] | None:
    """The accelerators of an EC2 or SageMaker instance type: their type as a Slurm GRES would call it, and how many
    an instance has; ``None`` if the type is not known. Instances without any have ``("", 0)``.
    """
    family, _, size = name.removeprefix("ml.").partition(".")
    if family in _FAMILIES and size in _FAMILIES[family][1]:
        return _FAMILIES[family][0], _FAMILIES[family][1][size]
    return ("", 0) if size and _WITHOUT.fullmatch(family) else None


def named_in(text: str) -> str | None:
    """The GPU that a label or name speaks of, such as "NVIDIA-H100-80GB-HBM3" of h100; ``None`` if of none known."""
    words = re.split(r"[^a-z0-9]+", text.lower())
    return next((word for word in words if word in _KNOWN), None)
