"""/etc/slurm-gov/agent.yaml: what it may say, and what is wrong with it, with line and remedy."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from slurm_gov.health.checks import registry, xid
from slurm_gov.health.messages import Advice, Fault, NodeName, State
from slurm_gov.health.topics import DEFAULT_PREFIX, check_prefix

DEFAULT_PATH = Path("/etc/slurm-gov/agent.yaml")
_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class ConfigError(Exception):
    """A configuration that was refused: ``str()`` has one line per mistake."""


def seconds(value: object) -> float:
    """``30``, ``30s``, ``5m``, ``1h`` as seconds; ValueError if it is none of these."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", value) if isinstance(value, str) else None
    if not found:
        raise ValueError("write a time as 30s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


Seconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, le=7 * 86_400)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Broker(_Model):
    """How the MQTT broker is reached. Without ``ca`` the connection is not encrypted: on a loopback address only."""

    host: Annotated[str, Field(min_length=1, max_length=255)] = "localhost"
    port: Annotated[int, Field(ge=1, le=65_535)] = 8883
    ca: Path | None = Path("/etc/slurm-gov/mqtt/ca.pem")
    cert: Path | None = Path("/etc/slurm-gov/mqtt/node.pem")
    key: Path | None = Path("/etc/slurm-gov/mqtt/node.key")
    user: str | None = None
    password_file: Path | None = None
    # The broker publishes the last will after 1.5 times this, if a node dies without closing its connection.
    keepalive: Annotated[float, BeforeValidator(seconds), Field(ge=5, le=3600)] = 15.0
    # A broker that restarts is met by all nodes at once: each waits a random part of a time that doubles up to this.
    longest_wait: Seconds = 60.0


class SiteCheck(_Model):
    """An executable of the site's, with exit codes as Nagios plugins have them."""

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    every: Seconds = 300.0
    limit: Seconds = 60.0
    fault: Fault = Fault.SITE
    advice: Advice = Advice.NONE
    nonzero: Literal["", "warn", "fail"] = ""  # what any exit code but 0 means, for programs such as NHC
    deep: bool = False  # only on the governor's command, before a repaired node takes work; never on a schedule
    env: dict[str, str] = {}


class XidRule(_Model):
    """A site's own meaning of an XID."""

    state: State | None = None
    fault: Fault | None = None
    advice: Advice | None = None


class Roots(_Model):
    """Where the agent looks. Tests and sandboxes point these elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    kernel_log: str = "/dev/kmsg"  # or "journal"
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    state: Path = Path("/var/lib/slurm-gov-agent")


class Config(_Model):
    """The whole file."""

    node: NodeName | Literal["auto"] = "auto"
    prefix: Annotated[str, AfterValidator(check_prefix)] = DEFAULT_PREFIX
    broker: Broker = Broker()
    heartbeat: Annotated[float, BeforeValidator(seconds), Field(ge=1, le=3600)] = 10.0
    status: Annotated[float, BeforeValidator(seconds), Field(ge=10, le=86_400)] = 300.0
    checks: dict[str, Any] = {}
    site_checks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")], SiteCheck] = {}
    xids: dict[Annotated[int, Field(ge=0, lt=100_000)], XidRule] = {}
    textfile: Path | None = None  # such as /var/lib/prometheus/node-exporter/slurm_gov_agent.prom
    roots: Roots = Roots()

    @property
    def name(self) -> str:
        """The node's name: as configured, or SLURMD_NODENAME, or the host's name up to its first dot."""
        if self.node != "auto":
            return self.node
        return os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


class Scheduled(_Model):
    """A probe that is on: its times, and the settings of its checks that differ from the defaults."""

    name: str
    every: float
    limit: float
    settings: dict[str, dict[str, Any]]
    off: frozenset[str]  # checks of it whose results are thrown away


def load(path: Path) -> Config:
    """Read and check the file. ConfigError with every mistake; a file that is not there is an error, too."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    try:
        data = YAML(typ="rt", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: {getattr(error, 'problem', None) or 'not YAML'}") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be settings, as node: n1")
    mistakes: list[str] = []
    config = None
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        mistakes += [_mistake(path, data, one["loc"], one["type"], one["msg"]) for one in error.errors()]
    checks = data.get("checks")
    if isinstance(checks, dict):
        mistakes += _check_checks(path, data, checks)
    if config:
        mistakes += _check_rest(path, data, config)
    if mistakes or config is None:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return config


def scheduled(config: Config) -> list[Scheduled]:
    """The probes that are on, with all that the configuration says of them."""
    found = []
    for name in registry.NAMES:
        probe = registry.probe(name)
        times = _mapping(config.checks.get(name))
        off = {check for check in probe.settings if is_off(config.checks.get(check))}
        if is_off(config.checks.get(name)) or off == set(probe.settings):
            continue
        settings = {
            check: {key: value for key, value in _mapping(config.checks.get(check)).items() if key not in _TIMES}
            for check in probe.settings
        }
        found.append(
            Scheduled(
                name=name,
                every=seconds(times.get("every", probe.every)),
                limit=seconds(times.get("limit", probe.limit)),
                settings={check: given for check, given in settings.items() if given},
                off=frozenset(off),
            )
        )
    return found


def xid_settings(config: Config) -> xid.Settings | None:
    """The settings of the check ``xid``; None if it is off."""
    given = config.checks.get(registry.XID)
    return None if is_off(given) else xid.Settings(**_mapping(given))


def xid_rules(config: Config) -> dict[int, xid.Rule]:
    return xid.rules({str(code): rule.model_dump(mode="json") for code, rule in config.xids.items()})


_TIMES = ("every", "limit")


def is_off(value: object) -> bool:
    """``off``, ``false``: in YAML 1.2 the former is a word."""
    return value is False or value == "off"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def known_checks() -> dict[str, str]:
    """Every check (and probe) by its name, and the probe that it belongs to."""
    found = {registry.XID: registry.XID}
    for name in registry.NAMES:
        found |= dict.fromkeys([name, *registry.probe(name).settings], name)
    return found


def _check_checks(path: Path, data: Any, checks: Mapping[str, Any]) -> list[str]:
    mistakes, known = [], known_checks()
    for name, given in checks.items():
        where = ("checks", name)
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            remedy = f'did you mean "{near[0]}"?' if near else f"known checks: {', '.join(known)}"
            mistakes.append(f'{_place(path, data, where)}: checks: there is no check "{str(name)[:40]}"; {remedy}')
            continue
        if is_off(given) or given is None or given is True or given == "on":
            continue
        if not isinstance(given, dict):
            mistakes.append(f"{_place(path, data, where)}: checks.{name}: write off, or settings as {{every: 30s}}")
            continue
        timed = name in registry.NAMES
        for key in _TIMES:
            if key in given and not timed:
                told = f"checks.{name}.{key}: this check runs with others; write checks.{known[name]}.{key}"
                mistakes.append(f"{_place(path, data, (*where, key))}: {told}")
            elif key in given:
                try:
                    TypeAdapter(Seconds).validate_python(given[key])
                except ValidationError as error:
                    mistakes += [_mistake(path, data, (*where, key), e["type"], e["msg"]) for e in error.errors()]
        made = xid.Settings if name == registry.XID else registry.probe(known[name]).settings.get(name)
        rest = {str(key): value for key, value in given.items() if key not in _TIMES}
        if made is None:
            for key in rest:
                of = ", ".join(registry.probe(name).settings)
                mistakes.append(f"{_place(path, data, (*where, key))}: checks.{name}.{key}: is set per check: {of}")
            continue
        options = [one.name for one in fields(made)]
        for key in [key for key in rest if key not in options]:
            told = _no_such(key, options + list(_TIMES) * timed)
            mistakes.append(_mistake(path, data, (*where, key), "", told))
        try:
            TypeAdapter(made).validate_python(_plain({k: v for k, v in rest.items() if k in options}))
        except ValidationError as error:
            mistakes += [_mistake(path, data, (*where, *one["loc"]), "", one["msg"]) for one in error.errors()]
    return mistakes


def _check_rest(path: Path, data: Any, config: Config) -> list[str]:
    mistakes = []
    broker = config.broker
    if broker.ca is None and broker.host not in ("localhost", "127.0.0.1", "::1"):
        told = "broker.ca: without it nothing is encrypted, which is for this machine only; name the authority's file"
        mistakes.append(f"{_place(path, data, ('broker', 'ca'))}: {told}")
    if broker.ca is not None and (broker.cert is None) != (broker.key is None):
        mistakes.append(f"{_place(path, data, ('broker',))}: broker: cert and key belong together")
    if (broker.user is None) != (broker.password_file is None):
        mistakes.append(f"{_place(path, data, ('broker',))}: broker: user and password_file belong together")
    known = known_checks()
    for name in config.site_checks:
        if name in known:
            place = _place(path, data, ("site_checks", name))
            mistakes.append(f"{place}: site_checks.{name}: is the name of a check of ours; choose another")
    if config.node == "auto":
        try:
            TypeAdapter(NodeName).validate_python(config.name)
        except ValidationError:
            mistakes.append(f'{path}: node: "{config.name[:70]}" is no node name; write node: NAME')
    return mistakes


def _plain(value: Any) -> Any:
    """ruamel's containers as Python's own."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _mistake(path: Path, data: Any, where: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in where)
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "extra_forbidden":
        text = _no_such(str(where[-1]), _options(where[:-1]))
    return _printable(f"{_place(path, data, where)}: {name}: {text}")


def _no_such(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return "no such setting; " + (f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(names)}")


def _options(where: tuple[int | str, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"broker": Broker, "roots": Roots, "site_checks": SiteCheck, "xids": XidRule}
    model = models.get(str(where[0]), Config) if where else Config
    return list(model.model_fields)


def _place(path: Path, data: Any, where: tuple[int | str, ...]) -> str:
    """File and line (from 1) of the innermost part of ``where`` that is in the file."""
    line = None
    for part in where:
        marks = getattr(data, "lc", None)
        try:
            line = (marks.key(part) if isinstance(data, dict) else marks.item(part))[0] + 1 if marks else line
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
    return f"{path}:{line}" if line else str(path)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def effective(config: Config) -> dict[str, Any]:
    """The configuration with every default, thresholds too, as plain data."""
    from dataclasses import asdict

    data: dict[str, Any] = config.model_dump(mode="json")
    on = {one.name: one for one in scheduled(config)}
    checks: dict[str, Any] = {}
    for name in registry.NAMES:
        if name not in on:
            checks[name] = "off"
            continue
        one = on[name]
        checks[name] = {"every": one.every, "limit": one.limit}
        for check, made in registry.probe(name).settings.items():
            known = "off" if check in one.off else asdict(made(**one.settings.get(check, {})))
            checks[check] = checks.get(check, {}) | known if isinstance(known, dict) else known
    found = xid_settings(config)
    checks[registry.XID] = asdict(found) if found else "off"
    return data | {"node": config.name, "checks": checks}
