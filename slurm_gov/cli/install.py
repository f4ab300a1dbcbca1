"""slurm-gov install: the plugin, its configuration, a sample policy and the unit, on a cluster that runs."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

import slurm_gov
from slurm_gov.cli.common import Failure, clean

if TYPE_CHECKING:
    from slurm_gov.cli.installing import File, Site, Step

MANUALS = "/usr/local/share/man"


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be done, and stop.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--remove", is_flag=True, help="Take away what was installed. Files that the site changed stay.")
@click.option("--node", is_flag=True, help="On a compute node: slurm-gov-agent's unit and configuration.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default="/",
    metavar="FOLDER",
    help="Install below this folder, as for a package.",
)
@click.option(
    "--slurm-conf",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The slurm.conf to go by. Default: what slurmctld says, or /etc/slurm/slurm.conf.",
)
@click.option(
    "--plugin-dir",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the plugin goes. Default: the first of Slurm's PluginDir.",
)
@click.option(
    "--man-dir",
    type=click.Path(path_type=Path),
    default=MANUALS,
    show_default=True,
    metavar="FOLDER",
    help="Where the manual pages go.",
)
@click.option("--slurm-user", metavar="USER", help="Whom slurm-govd runs as. Default: SlurmUser.")
@click.option(
    "--include",
    type=click.Path(path_type=Path),
    default="/usr/include",
    show_default=True,
    metavar="FOLDER",
    help="Where slurm/slurm.h of the running version is.",
)
def install(
    dry_run: bool,
    yes: bool,
    remove: bool,
    node: bool,
    root: Path,
    slurm_conf: Path | None,
    plugin_dir: Path | None,
    man_dir: Path,
    slurm_user: str | None,
    include: Path,
) -> None:
    """Install what slurm-gov needs on the controller, as root: shown first, and you are asked.

    The plugin is built against the installed headers of Slurm (libslurm-dev, slurm-devel), with gcc and make. The
    lines that slurm.conf lacks are printed, not written, and nothing is started. The manual pages are installed too;
    on a node only that of slurm-gov-agent. A file that the site changed is never overwritten. Installing twice
    changes nothing the second time; after an upgrade of slurm-gov or of Slurm, install again and restart slurmctld.

    \b
    Examples:
      slurm-gov install --dry-run
      slurm-gov install
      slurm-gov install --node                  on a compute node
      slurm-gov install --remove                after slurm-gov policy remove

    \b
    Exit codes:
      0  done, or nothing to do
      1  refused, failed, or not confirmed
      2  wrong usage
    """
    from slurm_gov.cli import installing
    from slurm_gov.cli.manual.man import node_pages

    if not man_dir.is_absolute():
        raise Failure("--man-dir wants an absolute path")
    site = _site(slurm_conf, plugin_dir, slurm_user, staging=root != Path("/"))
    manifest = _manifest(root)
    if remove:
        there = _there(root, manifest)
        try:
            steps = installing.removal(manifest, there, [site.config, _written(site.slurm_conf)])
        except installing.Refused as refused:
            raise Failure(str(refused)) from None
    else:
        source = _source()
        if node:
            files = installing.node_files(site, source)
            pages = node_pages(_manuals())
        else:
            if root == Path("/"):
                _check_version(include, site)
            plugin, preloaded = _build(include)
            files = installing.controller_files(site, plugin, source, preloaded)
            pages = _manuals()
        files += installing.manual_files(str(man_dir), pages)
        steps = installing.steps(files, _there(root, [file.path for file in files]), manifest)
    for line in installing.shown(steps, str(man_dir)):
        click.echo(clean(line))
    todo = [step for step in steps if step.do not in (installing.Do.SAME, installing.Do.KEEP)]
    if not todo:
        click.echo("nothing to do")
    elif not dry_run:
        _confirm(yes)
        _make(root, steps, manifest)
        click.echo("done")
    if not node and not remove:
        _next(site)


def _site(slurm_conf: Path | None, plugin_dir: Path | None, user: str | None, staging: bool) -> Site:
    """What slurmctld says of itself; where it does not answer, slurm.conf."""
    from slurm_gov.cli.installing import Site, gpu_tres_in, read_slurm_conf
    from slurm_gov.slurm.accounts_commands import read_config, read_nodes
    from slurm_gov.slurm.client import SlurmError
    from slurm_gov.slurm.run import run

    config: dict[str, str] = {}
    gpus: tuple[str, ...] = ()
    if slurm_conf is None and not staging:
        try:
            config = read_config(asyncio.run(run(["scontrol", "show", "config"], 25)))
            nodes = read_nodes(asyncio.run(run(["sinfo", "-a", "-h", "-N", "-o", "%N|%R|%G"], 25)))
            found = {tres.lower() for _, gres in nodes.values() for tres in gres if tres.startswith("gres/gpu")}
            gpus = tuple(sorted({"gres/gpu", *found})) if found else ()
        except SlurmError as error:
            click.echo(f"warning: {clean(error)}; going by slurm.conf", err=True)
    conf = str(slurm_conf or config.get("SLURM_CONF") or os.environ.get("SLURM_CONF") or "/etc/slurm/slurm.conf")
    if not config:
        try:
            text = Path(conf).read_text(errors="replace")
        except OSError as error:
            if slurm_conf is not None:
                raise Failure(f"{conf}: {error.strerror}") from None
            text = ""
        config, gpus = read_slurm_conf(text), gpu_tres_in(text)
    folder = str(plugin_dir or config.get("PluginDir", "").split(":")[0] or _plugin_dir())
    name = user or config.get("SlurmUser", "").partition("(")[0] or "slurm"
    if not Path(conf).is_absolute() or not Path(folder).is_absolute():
        raise Failure("--slurm-conf and --plugin-dir want absolute paths")
    return Site(str(Path(sys.executable).parent), name, _group_of(name), folder, conf, config, gpus)


def _written(slurm_conf: str) -> dict[str, str]:
    """What slurm.conf says, whatever slurmctld was started with; empty if it cannot be read."""
    from slurm_gov.cli.installing import read_slurm_conf

    try:
        return read_slurm_conf(Path(slurm_conf).read_text(errors="replace"))
    except OSError:
        return {}


def _plugin_dir() -> str:
    """The folder with Slurm's own plugins, by one that is always there."""
    for pattern in ("usr/lib/*/slurm-wlm", "usr/lib*/slurm", "usr/lib/*/slurm", "usr/local/lib/slurm"):
        for folder in sorted(Path("/").glob(pattern)):
            if (folder / "auth_munge.so").exists():
                return str(folder)
    raise Failure("cannot find the folder of Slurm's plugins; say --plugin-dir")


def _group_of(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def folder_of(name: str) -> Path:
    """One of our folders: in a checkout, or in the installed package."""
    package = Path(slurm_gov.__file__).parent
    for folder in (package.parent / name, package / name):
        if folder.is_dir():
            return folder
    raise Failure(f"{name} is missing from this installation of slurm-gov; install it anew")


def _manuals() -> dict[str, str]:
    from slurm_gov.cli.manual.man import manual_pages

    return manual_pages((folder_of("etc") / "job_submit_gov.conf").read_text())


def _source() -> dict[str, bytes]:
    files = [folder_of("etc") / name for name in ("job_submit_gov.conf", "policy.yaml", "agent.yaml")]
    files += [folder_of("systemd") / name for name in ("slurm-govd.service", "slurm-gov-agent.service")]
    return {file.name: file.read_bytes() for file in files}


def _build(include: Path) -> tuple[bytes, bytes | None]:
    """The plugin, and what is preloaded into sacctmgr if this Slurm needs it; the copy that it is built in goes."""
    from slurm_gov.slurm.doctor import built_for
    from slurm_gov.slurm.nodelay import LIBRARY, NEEDED_BEFORE

    if not (include / "slurm" / "slurm.h").is_file():
        raise Failure(
            f"{include}/slurm/slurm.h is not there: install the headers of the running Slurm (Debian: libslurm-dev, "
            "RPM: slurm-devel), or say --include"
        )
    for program in ("make", "cc"):
        if not shutil.which(program):
            raise Failure(f"{program} is not there, and the plugin is built here: install gcc and make")
    with tempfile.TemporaryDirectory(prefix="slurm-gov-") as folder:
        copy = shutil.copytree(
            folder_of("plugin_c"), Path(folder) / "plugin_c", ignore=shutil.ignore_patterns("build")
        )
        variables = [f"SLURM_INCLUDE_DIR={include.absolute()}", f"GOV_VERSION={slurm_gov.__version__}", "CFLAGS=-O2"]
        command = ["make", "-C", str(copy), *variables, "build/job_submit_gov.so", f"build/{LIBRARY}"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise Failure("the plugin did not build", details=made.stderr.splitlines()[-20:])
        plugin = (copy / "build" / "job_submit_gov.so").read_bytes()
        built = built_for(plugin)
        needed = built is not None and built.slurm < NEEDED_BEFORE
        return plugin, (copy / "build" / LIBRARY).read_bytes() if needed else None


def _check_version(include: Path, site: Site) -> None:
    """slurmctld dies at its start if the plugin was built for another version than its own."""
    from slurm_gov.slurm.parse import version

    text = site.config.get("SLURM_VERSION", "")
    # The program, not what runs: after an upgrade it is the program that is started next.
    if program := shutil.which("slurmctld", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"):
        told = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stdout
        text = told.split()[-1] if told.split() else text
    try:
        header = (include / "slurm" / "slurm_version.h").read_text(errors="replace")
    except OSError:
        return  # the build says what is missing
    found = re.search(r"SLURM_VERSION_NUMBER\s+(0x[0-9a-fA-F]+)", header)
    built = tuple(int(found[1], 16) >> shift & 255 for shift in (16, 8, 0)) if found else None
    wanted = version(text)
    if built and wanted and built != wanted:
        raise Failure(
            f"the headers are of Slurm {'.'.join(map(str, built))}, and slurmctld is {text}: it would not "
            "start with this plugin; install the headers of its version, or say --include"
        )


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _manifest(root: Path) -> dict[str, str]:
    from slurm_gov.cli.installing import MANIFEST

    file = _below(root, MANIFEST)
    try:
        told = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"{file} cannot be read: {error}") from None
    if not isinstance(told, dict) or not all(isinstance(one, str) for pair in told.items() for one in pair):
        raise Failure(f"{file} is not what slurm-gov install wrote; nothing was changed")
    return told


def _there(root: Path, paths: list[str] | dict[str, str]) -> dict[str, bytes]:
    found = {}
    for path in paths:
        try:
            found[path] = _below(root, path).read_bytes()
        except FileNotFoundError:
            continue
    return found


def _make(root: Path, steps: list[Step], manifest: dict[str, str]) -> None:
    """Make the steps. Cut off at any point, the next run goes on: what is created is in the manifest before it is
    there, so that it can always be removed; what is replaced only afterwards, so that it is not taken for the site's.
    """
    from slurm_gov.cli.installing import Do, new_manifest

    created = [step for step in steps if step.do is Do.CREATE]
    if created:
        _write_manifest(root, new_manifest(created, manifest))
    for step in steps:
        if step.do is Do.DELETE:
            path = _below(root, step.file.path)
            path.unlink(missing_ok=True)
            if path.parent.name in ("man1", "man5", "man8"):
                with contextlib.suppress(OSError):  # other pages are in it
                    path.parent.rmdir()
        elif step.do in (Do.CREATE, Do.REPLACE):
            _write(root, step.file)
    _write_manifest(root, new_manifest(steps, manifest))


def _write_manifest(root: Path, manifest: dict[str, str]) -> None:
    from slurm_gov.cli.installing import MANIFEST, File

    if manifest:
        _write(root, File(MANIFEST, (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()))
        return
    file = _below(root, MANIFEST)
    file.unlink(missing_ok=True)
    if file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()


def _write(root: Path, file: File) -> None:
    """A new file in place of the old one, in one step: slurmctld has the old plugin mapped."""
    path = _below(root, file.path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            new.write(file.content)
            new.flush()
            os.fchmod(new.fileno(), file.mode)
            os.fsync(new.fileno())
            Path(new.name).replace(path)
        except OSError:
            Path(new.name).unlink(missing_ok=True)
            raise


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("not changed: there is no terminal to ask on; add --yes")
    if not click.confirm("Do this?", default=False):
        raise Failure("not changed")


def _next(site: Site) -> None:
    from slurm_gov.cli.installing import slurm_conf_lines

    if lines := slurm_conf_lines(site):
        click.echo(f"\n{clean(site.slurm_conf)} needs these lines, instead of those of the same name:\n")
        for line in lines:
            click.echo(f"  {clean(line)}")
    click.echo(
        "\nThen: write the policy (/etc/slurm-gov/policy.yaml), restart slurmctld, slurm-gov policy apply,\n"
        "systemctl daemon-reload, systemctl enable --now slurm-govd, and ask: slurm-gov doctor"
    )
