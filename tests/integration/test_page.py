"""The live page and the read API of a real governor on a real Slurm, seen in a real browser.

``SLURM_GOV_IMAGES=docs/images`` keeps the pictures that are taken.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser
from conftest import NewSandbox
from governed import Cluster

from slurm_gov.sandbox.config import Pool

HOSTILE = "<b onclick=alert(1)>bold</b><img src=x onerror=document.title='owned'>"
ESCAPES = "\x1b]0;owned\x07\x1b[31mred\u202egnp.exe"
TOKEN = "a-token-of-some-length"
WORK = "trap '' USR1; sleep 900"


@pytest.fixture(scope="module")
def cluster(module_sandbox: NewSandbox) -> Cluster:
    return Cluster(module_sandbox(pools=(Pool("h100", 8, 8),)))


@pytest.fixture(scope="module")
def page(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("SLURM_GOV_IMAGES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("images")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def get(cluster: Cluster, path: str, **headers: str) -> Any:
    request = urllib.request.Request(cluster.sandbox.page + path, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def busy(cluster: Cluster) -> None:
    """research fills the cluster, product wants some back, one node is sick; every text is hostile."""
    cluster.policy("{quota: {h100: 32}, borrow: unlimited}", "{quota: {h100: 32}}", grace="75s")
    if cluster.states():
        return
    sandbox = cluster.sandbox
    sandbox.run(["scontrol", "update", "nodename=n8", "state=drain", f"reason={HOSTILE}{ESCAPES}"])
    names = (HOSTILE, ESCAPES, "pretrain-7b", "finetune", "sweep", "eval", "tokenise")
    for name in names:
        sandbox.submit(WORK, "-A", "research", "-N1", "--gpus-per-node=8", "-J", name, "--comment", HOSTILE)
    cluster.until(lambda: list(cluster.states().values()).count("R") == 7, "seven run", 60)
    time.sleep(75)  # what has run for less than the grace period gets no more than that
    sandbox.submit(WORK, "-A", "product", "-N2", "--gpus-per-node=8", "-J", HOSTILE + ESCAPES)
    sandbox.submit(WORK, "-A", "research", "-N4", "--gpus-per-node=8", "-J", "waits")
    sandbox.submit(WORK, "-A", "product", "-N1", "--gpus-per-node=8", "-J", "held", "--hold")
    cluster.until(lambda: get(cluster, "api/v1/preemptions")["preemptions"], "two must leave")


def test_the_page_shows_the_cluster_as_it_is(cluster: Cluster, page: Browser, images: Path) -> None:
    busy(cluster)
    page.open(f"{cluster.sandbox.page}?theme=light")
    page.until(lambda: "56 of 64 GPUs in use" in page.text(".pool"), "the pool is there")
    page.until(lambda: "24 borrowed" in page.text(".pool"), "what is borrowed")
    assert "product lends 24 to research" in page.text(".flows")
    page.until(lambda: page.text(".leaving").count("left, then requeue") == 2, "two jobs have been told to leave")
    waiting = page.text(".card.waiting")
    for reason in ("taking back", "nothing to borrow", "not ready"):
        assert reason in waiting
    assert "its user holds it" in waiting
    assert "Not taking jobs: 1 node" in page.text(".nodes")
    assert page.js("return document.querySelectorAll('.map .node').length") == 8
    assert "live" in page.text(".fresh")
    page.until(lambda: page.js("return document.querySelectorAll('.chart path').length"), "the chart has begun", 120)
    # Nothing is loaded from elsewhere, nothing was blocked, no script failed.
    assert page.requests() == {cluster.sandbox.page.rstrip("/")}
    assert page.complaints() == []

    for name, theme, width, height, scale in (
        ("live-page-light", "light", 1440, 900, 1),
        ("live-page-dark", "dark", 1440, 900, 1),
        ("live-page-phone", "light", 360, 1500, 2),
        ("live-page-wall", "dark", 2560, 1440, 1),
    ):
        page.open(f"{cluster.sandbox.page}?theme={theme}", width, height, scale)
        page.until(lambda: "GPUs in use" in page.text(".pool"), "the pool is there")
        assert page.js("return document.documentElement.scrollWidth") <= width, f"{name}: nothing sticks out"
        cut = "[...document.querySelectorAll('.teams')].filter(e => e.scrollWidth > e.parentNode.clientWidth + 1)"
        assert page.js(f"return {cut}.length") == 0, f"{name}: the table of teams is cut"
        page.picture(images / f"{name}.png")


def test_what_users_write_is_text(cluster: Cluster, page: Browser) -> None:
    busy(cluster)
    page.open(cluster.sandbox.page)
    page.until(lambda: "onclick=alert(1)" in page.text(".card.waiting"), "the job's name, in full")
    page.until(lambda: "onerror=document.title" in page.text(".nodes"), "the node's reason, in full")
    assert page.js("return document.querySelectorAll('main b[onclick], main img').length") == 0
    assert "owned" not in str(page.js("return document.title"))
    seen = page.text()
    assert "\\u001b" in seen and "\\u202e" in seen
    assert not any(mark in seen for mark in "\x1b\x07\u202e")
    assert page.complaints() == []


def test_a_job_is_found(cluster: Cluster, page: Browser) -> None:
    busy(cluster)
    page.open(cluster.sandbox.page)
    page.until(lambda: page.js("return !!document.querySelector('input[type=search]')"), "the search")
    page.js("const i = document.querySelector('input[type=search]'); i.value = 'pretrain'; "
            "i.dispatchEvent(new Event('input'))")  # fmt: skip
    page.until(lambda: "1 job found" in page.text(".found"), "it is found")
    assert "runs for" in page.text(".card.waiting .rows")


def test_the_page_follows(cluster: Cluster, page: Browser) -> None:
    """Without being loaded again: a job more, the daemon gone and back, Slurm gone and back."""
    busy(cluster)
    page.open(cluster.sandbox.page)
    page.until(lambda: "GPUs in use" in page.text(".pool"), "the page is there")
    page.js("window.same = true")
    more = cluster.sandbox.submit("true", "-A", "research", "-N8", "--gpus-per-node=8", "-J", "one-more", "--hold")
    page.until(lambda: "one-more" in page.text(".card.waiting"), "the new job is seen")
    cluster.sandbox.run(["scancel", str(more)])
    page.until(lambda: "one-more" not in page.text(".card.waiting"), "and its end")

    cluster.sandbox.kill_governor()
    page.until(lambda: "slurm-govd does not answer" in page.text(".banner"), "that the daemon is gone is said", 90)
    assert "What you see is as of" in page.text(".banner") and "not live" in page.text(".fresh")
    assert "GPUs in use" in page.text(".pool")
    cluster.sandbox.start_governor()
    page.until(lambda: page.text(".banner") == "" and "GPUs in use" in page.text(".pool"), "it is back", 120)

    cluster.sandbox.stop_daemon("slurmctld")
    try:
        page.until(lambda: "Slurm does not answer" in page.text(".banner"), "that Slurm is gone is said", 90)
        assert "GPUs in use" in page.text(".pool")
        began = time.monotonic()
        done = cluster.sandbox.run(["slurm-gov", "status"], check=False)
        assert done.returncode == 1 and "Slurmctld(primary)" in done.stderr and "DOWN" in done.stderr
        assert time.monotonic() - began < 15, "Slurm's own commands take 19 s to find out"
    finally:
        cluster.sandbox.start_slurmctld()
    page.until(lambda: page.text(".banner") == "", "it is back", 120)
    assert page.js("return window.same")


def test_without_slurmdbd_the_views_show_what_slurmctld_knows(cluster: Cluster) -> None:
    cluster.sandbox.stop_daemon("slurmdbd")
    try:
        for command in ("status", "jobs", "plan"):
            done = cluster.sandbox.run(["slurm-gov", command])
            assert "research" in done.stdout
        assert (
            "slurmdbd does not answer: no cap can be changed" in cluster.sandbox.run(["slurm-gov", "status"]).stdout
        )
    finally:
        cluster.sandbox.start_slurmdbd()


def test_the_api_keeps_its_own_description(cluster: Cluster, tmp_path: Path) -> None:
    """schemathesis, with all of its checks."""
    busy(cluster)
    done = subprocess.run(
        [Path(sys.executable).parent / "st", "run", f"{cluster.sandbox.page}api/v1/openapi.json", "--checks", "all",
         "--phases", "coverage,fuzzing", "--max-examples", "8", "--generation-deterministic", "--no-color"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "failed" not in done.stdout


def test_the_api_says_what_slurm_says(cluster: Cluster) -> None:
    busy(cluster)
    cluster.until(lambda: get(cluster, "api/v1/cluster")["slurm_answers"], "Slurm answers")
    states = cluster.states()
    jobs = {int(one["job"]): one for one in get(cluster, "api/v1/jobs?limit=1000")["jobs"]}
    assert set(jobs) == set(states)
    assert {job for job, one in jobs.items() if one["state"] == "waiting"} == {
        j for j, s in states.items() if s == "PD"
    }
    (pool,) = get(cluster, "api/v1/pools")["pools"]
    assert sum(part["gpus"] for part in pool["segments"]) == pool["total"] == 64
    teams = {row["team"]: row for row in get(cluster, "api/v1/teams")["teams"]}
    assert teams["research"]["cap"] == cluster.caps("research")["gres/gpu:h100"]

    def nodes() -> dict[str, Any]:
        return {row["node"]: row for row in get(cluster, "api/v1/nodes")["nodes"]}

    # Slurm 24.11 has nodes unknown for some seconds after its restart, and tests before this one restart it.
    cluster.until(lambda: nodes()["n1"]["condition"] != "down", "Slurm has heard of its nodes", 60)
    assert nodes()["n8"]["condition"] in ("drained", "draining") and HOSTILE in nodes()["n8"]["reason"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(cluster, "api/v1/jobs/999999")


def test_top_in_a_terminal_of_80_by_24(cluster: Cluster) -> None:
    """What it shows is Slurm's; what it leaves is the terminal as it was."""
    busy(cluster)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        ["slurm-gov", "top"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=cluster.sandbox.env | {"TERM": "xterm-256color"},
    )  # fmt: skip
    said = b""

    def come(text: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 60
        while text not in said:
            assert time.monotonic() < deadline and process.poll() is None, said[-3000:]
            if select.select([ours], [], [], 0.5)[0]:
                said += os.read(ours, 65536)

    try:
        come(b"56 of 64 GPUs used")
        os.write(ours, b"w")
        come(b"nothing to borrow")
        os.write(ours, b"q")
        come(b"\x1b[?1049l")  # back from the screen of its own
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        after = termios.tcgetattr(theirs)
        os.close(ours)
        os.close(theirs)
    assert after == before
    assert b"owned\x07" not in said and b"\x1b[31mred" not in said


def test_a_token(cluster: Cluster, page: Browser, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    cluster.sandbox.stop_governor()
    cluster.sandbox.start_governor("--token-file", str(file))
    try:
        for path in ("", "page.js", "api/v1/pools", "api/v1/stream", "api/v1/openapi.json", "metrics"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(cluster, path)
        cluster.until(lambda: ready(cluster, Authorization=f"Bearer {TOKEN}"), "the API answers")
        address = cluster.sandbox.page.replace("http://", f"http://wall:{TOKEN}@")
        page.open(address)
        page.until(lambda: "GPUs in use" in page.text(".pool"), "the page and its stream, by password")
        password = base64.b64encode(f"x:{TOKEN}".encode()).decode()
        assert get(cluster, "api/v1/cluster", Authorization=f"Basic {password}")["slurm_answers"]
    finally:
        cluster.sandbox.stop_governor()
        cluster.sandbox.start_governor()


def ready(cluster: Cluster, **headers: str) -> bool:
    """Whether Slurm has answered the governor once."""
    try:
        return bool(get(cluster, "api/v1/cluster", **headers))
    except urllib.error.HTTPError as error:
        assert error.code == 503, error
        return False


def test_a_port_in_use_is_one_clear_line(cluster: Cluster) -> None:
    port = str(cluster.sandbox.ports.governor)
    done = cluster.sandbox.run(
        ["slurm-govd", "--policy", cluster.sandbox.layout.policy, "--socket", cluster.sandbox.dir / "other.sock",
         "--listen", f"127.0.0.1:{port}"], check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"slurm-govd: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another with --listen ADDRESS:PORT, or --listen none"
    ]


def test_the_daemon_ends_cleanly_while_pages_are_open(cluster: Cluster, page: Browser) -> None:
    page.open(cluster.sandbox.page)
    page.until(lambda: "GPUs in use" in page.text(".pool"), "the page is there")
    cluster.sandbox.stop_governor()
    log = cluster.sandbox.log("slurm-govd").read_text()
    assert "stopped" in log.splitlines()[-1], log[-2000:]
    assert "Traceback" not in log
    cluster.sandbox.start_governor()
