"""slurm-gov policy import: another system's policy as ours."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from slurm_gov.cli.common import Failure, clean

if TYPE_CHECKING:
    from slurm_gov.policy.importing import Imported, PoolOption, Source

F = TypeVar("F", bound=Callable[..., Any])
MOST_BYTES = 256 * 1024 * 1024

_files = click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(readable=False))


def _output(command: F) -> F:
    for option in (
        click.option("--force", is_flag=True, help="Replace the output file if it is there."),
        click.option("-o", "--output", metavar="FILE", help="Write the policy to FILE instead of standard output."),
    ):
        command = option(command)
    return command


def _pool(what: str) -> Callable[[F], F]:
    return click.option(
        "--pool",
        "pools",
        multiple=True,
        metavar=f"{what}=GPU:PARTITION",
        help=f"What {what} is in Slurm: its GPU type and partition, as sinfo -o '%P %G' shows them. May be repeated.",
    )


@click.group("import")
def import_group() -> None:
    """Write a policy file from the policy of another system.

    The policy goes to standard output, or to the file named with -o. What has no counterpart is listed on standard
    error, each with what happens here instead. Slurm is not needed, and nothing in it is changed.

    \b
    From HyperPod or Kueue to a running policy:
      slurm-gov policy import hyperpod quotas.json cluster.json -o policy.yaml
      slurm-gov policy diff policy.yaml        what would change in Slurm?
      slurm-gov policy apply policy.yaml       change it

    \b
    Exit codes:
      0  done
      1  a file is wrong, or the output file is there already: nothing was written
      2  wrong usage
    """


@import_group.command(short_help="From SageMaker HyperPod's compute quotas.")
@_files
@_pool("INSTANCE_TYPE")
@click.option(
    "--gpus-per-instance",
    "per_instance",
    multiple=True,
    metavar="INSTANCE_TYPE=NUMBER",
    help="How many GPUs an instance has, where that is not known here. May be repeated.",
)
@click.option("--cluster", metavar="ARN", help="Read only this cluster's quotas: its ARN, or the id at its end.")
@_output
def hyperpod(
    files: Sequence[str],
    pools: Sequence[str],
    per_instance: Sequence[str],
    cluster: str | None,
    output: str | None,
    force: bool,
) -> None:
    """Import compute quotas and the cluster policy of SageMaker HyperPod.

    FILE is JSON as AWS's API has it: what create-compute-quota and create-cluster-scheduler-config take, or what
    describe-compute-quota, list-compute-quotas and describe-cluster-scheduler-config print; "-" is standard input.
    The GPU type of an instance type is known (ml.p5.48xlarge has h100), and its partition is taken to be "gpu",
    unless --pool says otherwise; for a part of its GPUs, --pool ml.p5.48xlarge/mig-1g.10gb=1g.10gb:mig.

    \b
    Examples:
      aws sagemaker list-compute-quotas > quotas.json
      aws sagemaker describe-cluster-scheduler-config --cluster-scheduler-config-id ID > cluster.json
      slurm-gov policy import hyperpod quotas.json cluster.json -o policy.yaml
      slurm-gov policy import hyperpod quotas.json --pool ml.p5.48xlarge=h100:train,train-long

    \b
    Exit codes:
      0  done; what has no counterpart is listed on standard error
      1  a file is wrong, or the output file is there already: nothing was written
      2  wrong usage
    """
    from slurm_gov.policy.import_hyperpod import import_hyperpod

    numbers = {}
    for text in per_instance:
        name, _, number = text.rpartition("=")
        if not name or not number.isdigit():
            raise click.UsageError(
                f"--gpus-per-instance {text}: write INSTANCE_TYPE=NUMBER, such as ml.p5.48xlarge=8"
            )
        numbers[name] = int(number)
    options = _pool_options(pools)
    _write(files, output, force, lambda sources: import_hyperpod(sources, options, numbers, cluster))


@import_group.command(short_help="From Kueue's ClusterQueues and Cohorts.")
@_files
@_pool("FLAVOR")
@click.option(
    "--gpu-resource",
    "gpu_resources",
    multiple=True,
    metavar="NAME",
    help="A resource that counts whole GPUs, beside nvidia.com/gpu and its like. May be repeated.",
)
@_output
def kueue(
    files: Sequence[str], pools: Sequence[str], gpu_resources: Sequence[str], output: str | None, force: bool
) -> None:
    """Import ClusterQueues, Cohorts, ResourceFlavors, WorkloadPriorityClasses and LocalQueues of Kueue.

    FILE is YAML or JSON, of one object or several, v1beta1 or v1beta2, also as kubectl get prints them; "-" is
    standard input. Kueue's own Configuration, if given, says whether fair sharing is on. The GPU type of a flavor
    is found in the labels of its ResourceFlavor, else in its name, and its partition is taken to be "gpu", unless
    --pool says otherwise; for a part of its GPUs, --pool FLAVOR/mig-1g.10gb=1g.10gb:mig.

    \b
    Examples:
      kubectl get clusterqueues,cohorts,resourceflavors,workloadpriorityclasses,localqueues -A -o yaml > kueue.yaml
      slurm-gov policy import kueue kueue.yaml -o policy.yaml
      slurm-gov policy import kueue kueue.yaml --pool reserved=h100:gpu --pool spot=a100:spot

    \b
    Exit codes:
      0  done; what has no counterpart is listed on standard error
      1  a file is wrong, or the output file is there already: nothing was written
      2  wrong usage
    """
    from slurm_gov.policy.import_kueue import import_kueue

    options = _pool_options(pools)
    _write(files, output, force, lambda sources: import_kueue(sources, options, gpu_resources))


def _pool_options(texts: Sequence[str]) -> dict[str, PoolOption]:
    from slurm_gov.policy.importing import PoolOption

    options = {}
    for text in texts:
        theirs, equals, ours = text.partition("=")
        if not theirs or not equals:
            raise click.UsageError(f"--pool {text}: write NAME=GPU:PARTITION, such as ml.p5.48xlarge=h100:gpu")
        if theirs in options:
            raise click.UsageError(f"--pool {theirs} is given twice")
        try:
            options[theirs] = PoolOption.parse(ours)
        except ValueError as error:
            raise click.UsageError(f"--pool {theirs}: {error}") from None
    return options


def _write(
    files: Sequence[str], output: str | None, force: bool, read: Callable[[Sequence[Source]], Imported]
) -> None:
    from slurm_gov.policy import PolicyError

    if output and not force and Path(output).exists():
        raise Failure(f"{output} is there already, and nothing was written; --force replaces it")
    try:
        imported = read([_source(name) for name in files])
    except PolicyError as error:
        problems = error.problems
        if len(problems) == 1:
            raise Failure(f"{problems[0]}; nothing was written") from None
        raise Failure(f"{len(problems)} mistakes, nothing was written", error.report().splitlines()) from None
    if output:
        _save(imported.text, Path(output), force)
    else:
        click.echo(imported.text, nl=False)
    for note in imported.notes:
        click.echo(f"note: {clean(note)}", err=True)
    for warning in imported.checked.warnings:
        said = f"{warning.path}: {warning.message}" + (f"; {warning.remedy}" if warning.remedy else "")
        click.echo(f"warning: {clean(said)}", err=True)
    if output:
        click.echo(f"written: {clean(output)}; next: slurm-gov policy diff {clean(output)}", err=True)


def _source(name: str) -> Source:
    from slurm_gov.policy.importing import Source

    shown = "(standard input)" if name == "-" else name
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise Failure(f"{shown}: is larger than {MOST_BYTES >> 20} MiB; nothing was written")
        return Source(shown, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        why = f"line {line}: the byte 0x{raw[error.start]:02x} is not UTF-8; save the file as UTF-8"
    except (OSError, ValueError) as error:
        why = f"cannot be read: {error.strerror if isinstance(error, OSError) and error.strerror else error}"
    raise Failure(f"{shown}: {why}; nothing was written")


def _save(text: str, target: Path, force: bool) -> None:
    """Write the file in one step; one that came meanwhile is not replaced, unless forced."""
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as new:
            made = Path(new.name)
            try:
                new.write(text.encode())
                new.flush()
                os.fsync(new.fileno())
                made.chmod(0o644)
                if force:
                    made.replace(target)
                else:
                    target.hardlink_to(made)
            finally:
                made.unlink(missing_ok=True)
    except FileExistsError:
        raise Failure(f"{target} is there already, and nothing was written; --force replaces it") from None
    except OSError as error:
        raise Failure(f"{target} could not be written: {error.strerror}") from None
