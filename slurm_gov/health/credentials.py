"""Who may speak on the broker: an authority of our own, a certificate per node, and Mosquitto's access rules.

The name in a certificate is the MQTT user: a node's is its Slurm name, the governor's is ``governor``. Made with
openssl(1): elliptic keys (P-256), so that a thousand handshakes after a broker's restart cost little.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slurm_gov.health.topics import DEFAULT_PREFIX, check_prefix

SERVICES = ("broker", "governor", "provisioner", "watcher")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class CredentialError(Exception):
    """A credential could not be made; the text says why and what would be right."""


@dataclass(frozen=True)
class Authority:
    """A folder with ``ca.pem``, ``ca.key`` and what was issued: ``NAME.pem`` and ``NAME.key``."""

    dir: Path

    @property
    def certificate(self) -> Path:
        return self.dir / "ca.pem"

    @property
    def key(self) -> Path:
        """The secret that makes credentials: it belongs on no node, and not on the broker."""
        return self.dir / "ca.key"

    def files(self, name: str) -> tuple[Path, Path]:
        """Where the certificate and the key of a name are."""
        return self.dir / f"{name}.pem", self.dir / f"{name}.key"

    @classmethod
    def create(cls, folder: Path, days: int = 3650) -> Authority:
        """Make a new authority. CredentialError if the folder already has one."""
        new = cls(folder)
        if new.certificate.exists() or new.key.exists():
            raise CredentialError(
                f"{folder} already has an authority; a new one would shut out everybody who has a credential"
            )
        folder.mkdir(parents=True, exist_ok=True)
        extensions = ["basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign"]
        arguments: list[str | Path]
        arguments = ["req", "-x509", *_NEW_KEY, "-keyout", new.key, "-out", new.certificate, "-days", str(days)]
        arguments += ["-subj", "/CN=slurm-gov MQTT authority"]
        _openssl([*arguments, *(part for text in extensions for part in ("-addext", text))])
        new.certificate.chmod(0o644)
        return new

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """The authority that is there. CredentialError if there is none."""
        found = cls(folder)
        for file in (found.certificate, found.key):
            if not file.exists():
                raise CredentialError(
                    f"{file} is not there: make an authority first with slurm-gov mqtt init {folder}"
                )
        return found

    def issue_server(self, hosts: Sequence[str], days: int = 3650) -> None:
        """The broker's own credential, for the names and addresses under which agents reach it."""
        self._issue("broker", f"subjectAltName={_alternatives(hosts)}\nextendedKeyUsage=serverAuth\n", days)

    def issue(self, name: str, days: int = 3650) -> None:
        """A credential for a client. It cannot pose as a broker. CredentialError if the name has one already."""
        if not _NAME.fullmatch(name):
            raise CredentialError(
                f'"{name[:60]}" is no name for a credential: letters, digits, ".", "_" and "-" only'
            )
        if name in ("broker", "ca"):
            raise CredentialError(f"{name} is no client")
        self._issue(name, "extendedKeyUsage=clientAuth\n", days)

    def _issue(self, name: str, extensions: str, days: int) -> None:
        certificate, key = self.files(name)
        if certificate.exists():
            raise CredentialError(f"{certificate} is there already; remove it to make another")
        with tempfile.TemporaryDirectory() as work:
            request, options = Path(work, "request"), Path(work, "options")
            options.write_text(
                "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n" + extensions
            )
            _openssl(["req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}"])
            signing: list[str | Path] = ["x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key]
            _openssl([*signing, "-days", str(days), "-extfile", options, "-out", certificate])
        certificate.chmod(0o644)


_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]


def access_rules(prefix: str = DEFAULT_PREFIX) -> str:
    """Mosquitto's acl_file. What is not allowed is forbidden."""
    root = f"{check_prefix(prefix)}/v1"
    return f"""\
# Who may say what to Mosquitto. The user (%u) is the name in the client's certificate.

# A node says how it is itself, and reads what it is asked.
pattern write {root}/node/%u/status
pattern write {root}/node/%u/heartbeat
pattern write {root}/node/%u/presence
pattern read {root}/node/%u/command

# slurm-govd
user governor
topic read {root}/node/+/status
topic read {root}/node/+/heartbeat
topic read {root}/node/+/presence
topic write {root}/node/+/command
topic write {root}/provider/+/request
topic read {root}/provider/+/acknowledgement
topic write {root}/event/#
# A node that left the cluster: its retained messages are taken away.
topic write {root}/node/+/status
topic write {root}/node/+/presence

# A site's provisioner: it is asked to reboot and replace nodes.
user provisioner
topic read {root}/provider/+/request
topic write {root}/provider/+/acknowledgement
topic read {root}/event/#

# Whoever wants to look on: dashboards, alerting.
user watcher
topic read {root}/#
"""


def broker_config(folder: Path, port: int = 8883, *, address: str = "", data: Path | None = None) -> str:
    """Mosquitto's configuration, with all files in one folder. An empty ``address`` is every one of the machine."""
    store = f"persistence true\npersistence_location {data}/\n" if data else "persistence false\n"
    return f"""\
# Mosquitto for slurm-gov: TLS only, everybody with a certificate of our own authority.

listener {port}{f" {address}" if address else ""}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
tls_version tlsv1.2

# The name in the certificate is the user, and the client id too: nobody can push a node off the broker, and so
# make it seem dead, by connecting under that node's id.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl

# The largest payload that is read is 65536 bytes (docs/mqtt.md); before it comes the topic.
max_packet_size 66560
# Retained states outlive a restart of the broker.
{store}\
# When a broker restarts all nodes speak at once: what the governor has not yet taken waits, it is not dropped.
# Mosquitto drops after 1000 by default; this is enough for ten thousand nodes.
max_queued_messages 100000
log_dest stderr
log_type error
log_type warning
log_type notice
"""


def create_all(folder: Path, hosts: Sequence[str], nodes: Iterable[str], prefix: str = DEFAULT_PREFIX) -> Authority:
    """Everything that a broker and its clients need: authority, broker, services, nodes, access rules."""
    rules = access_rules(prefix)
    _alternatives(hosts)  # nothing is made of what is wrong
    authority = Authority.create(folder)
    authority.issue_server(hosts)
    for name in (*SERVICES[1:], *nodes):
        authority.issue(name)
    (folder / "acl").write_text(rules)
    return authority


def _alternatives(hosts: Sequence[str]) -> str:
    """The subjectAltName of a server that has these names and addresses."""
    if not hosts:
        raise CredentialError("a broker needs at least one host name or address")
    return ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)


def _is_address(host: str) -> bool:
    import ipaddress

    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    if not re.fullmatch(r"[A-Za-z0-9*][A-Za-z0-9.-]{0,250}", host):
        raise CredentialError(f'"{host[:60]}" is neither a host name nor an address')
    return False


def _openssl(arguments: Sequence[str | Path]) -> None:
    before = os.umask(0o077)  # keys are for their owner alone
    try:
        done = subprocess.run(
            ["openssl", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise CredentialError("openssl is not installed (package openssl)") from None
    finally:
        os.umask(before)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip(".+*-")]
        raise CredentialError(f"openssl {arguments[0]} failed: {' '.join(said)[-300:]}")
