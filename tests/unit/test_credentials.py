"""The authority and what it issues, and that etc/mosquitto is what the code writes."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_gov.cli.mqtt import mqtt
from slurm_gov.health.credentials import Authority, CredentialError, access_rules, broker_config, create_all

ETC = Path(__file__).parents[2] / "etc" / "mosquitto"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_all(tmp_path_factory.mktemp("mqtt") / "new", ["127.0.0.1", "mqtt.example"], ["n1"])


def test_the_samples_are_what_the_code_writes() -> None:
    assert (ETC / "acl").read_text() == access_rules()
    expected = broker_config(Path("/etc/slurm-gov/mqtt"), data=Path("/var/lib/mosquitto"))
    assert (ETC / "mosquitto.conf").read_text() == expected


def test_keys_are_closed_and_certificates_open(authority: Authority) -> None:
    for name in ("ca", "broker", "governor", "n1"):
        certificate, key = authority.files(name)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, name
        assert stat.S_IMODE(certificate.stat().st_mode) == 0o644, name


def handshake(authority: Authority, server: str, client: str, host: str) -> None:
    """A TLS handshake in memory, both sides checked."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_cert_chain(*authority.files(server))
    calling = ssl.create_default_context(cafile=authority.certificate)
    calling.load_cert_chain(*authority.files(client))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        calling.wrap_bio(down, up, server_hostname=host),
        serving.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in ends:
        end.do_handshake()


@pytest.mark.parametrize("host", ["127.0.0.1", "mqtt.example"])
def test_node_and_broker_trust_each_other(authority: Authority, host: str) -> None:
    handshake(authority, "broker", "n1", host)


def test_a_node_cannot_pose_as_the_broker(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, "n1", "governor", "127.0.0.1")


def test_the_broker_is_known_by_its_name(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, "broker", "n1", "elsewhere.example")


@pytest.mark.parametrize("name", ["", "../n1", "a/b", "#", "+", "broker", "ca", "-x", "a b"])
def test_names_that_cannot_be(authority: Authority, name: str) -> None:
    with pytest.raises(CredentialError):
        authority.issue(name)


def test_nothing_is_overwritten(authority: Authority) -> None:
    before = authority.files("n1")[0].read_bytes()
    with pytest.raises(CredentialError, match="is there already"):
        authority.issue("n1")
    with pytest.raises(CredentialError, match="already has an authority"):
        Authority.create(authority.dir)
    assert authority.files("n1")[0].read_bytes() == before


def test_no_authority_there(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="slurm-gov mqtt init"):
        Authority.open(tmp_path)


def run(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(mqtt, [str(one) for one in arguments])
    return done.exit_code, done.output


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "mqtt"
    assert run("issue", folder, "n1")[0] == 1
    assert run("init", folder, "--broker", "bad host")[0] == 1
    assert run("init", tmp_path / "x", "--broker", "h", "--prefix", "a/#")[0] == 1
    assert not folder.exists() and not (tmp_path / "x").exists(), "nothing is made of what is wrong"
    assert run("init", folder, "--broker", "mqtt.example", "--broker", "10.0.0.1", "--prefix", "gov/c1")[0] == 0
    assert "gov/c1/v1/node/%u/status" in (folder / "acl").read_text()
    assert f"{folder}/broker.key" in (folder / "mosquitto.conf").read_text()
    assert run("init", folder, "--broker", "mqtt.example")[0] == 1
    assert run("issue", folder, "n[1-2],login") == (0, "made 3 credentials: login,n[1-2]\n")
    assert run("issue", folder, "n[1-3]") == (0, "made 1 credentials: n3\n")
    assert run("issue", folder, "n[1-")[0] == 1
