"""contrib/: the nginx sample in front of a real gateway, and names of metrics that there are."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from orchestrator.store import messages, tickets
from orchestrator.store.db import Database
from tests.unit import scrape
from tests.unit.gateway import Gateway
from tests.unit.postgres import Cluster

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
NAME = "mc.example.org"


def free_port() -> int:
    """One that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Proxy:
    """nginx with the sample, in front of a gateway that knows its name."""

    gateway: Gateway
    port: int
    certificate: Path

    @property
    def host(self) -> str:
        """As a browser says it."""
        return f"{NAME}:{self.port}"

    def open(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[ssl.SSLSocket, BinaryIO, int, bytes]:
        """A request over TLS; status and head are read."""
        trust = ssl.create_default_context(cafile=str(self.certificate))
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        peer = trust.wrap_socket(plain, server_hostname=NAME)
        given = {"Host": self.host, "Cookie": f"__Host-mc_session={self.gateway.secret}", "Accept-Encoding": "gzip",
                 "Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}  # fmt: skip
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items()), "", ""]
        peer.sendall("\r\n".join(lines).encode() + body)
        file = peer.makefile("rb")
        status = int(file.readline().split()[1])
        head = b"".join(iter(file.readline, b"\r\n"))
        return peer, file, status, head.lower()

    def status(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        """Of a request."""
        peer, file, status, _ = self.open(method, path, body, **headers)
        file.close()
        peer.close()
        return status


@pytest.fixture
def proxy(cluster: Cluster, tmp_path: Path) -> Iterator[Proxy]:
    """A running one; what the sample says of paths and ports is this machine's."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    port = free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", "privkey.pem", "-out", "fullchain.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    environ = {
        "MC_GATEWAY_ORIGIN": f"https://{NAME}:{port}",
        "MC_GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
    }
    with Gateway(tmp_path, cluster.create_database(), environ) as gateway:
        sample = (CONTRIB / "nginx.conf").read_text(encoding="utf-8")
        for there, here in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
            ("http://127.0.0.1:3001;", f"http://{gateway.host};"),
            (f"/etc/letsencrypt/live/{NAME}/", f"{tmp_path}/"),
        ):
            assert there in sample
            sample = sample.replace(there, here)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        config = tmp_path / "nginx.conf"
        config.write_text(
            f"user root; daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;"
            f" events {{}} http {{ access_log off; gzip on; gzip_types *; {folders}\n{sample}\n}}"
        )
        arguments = [NGINX, "-c", str(config), "-e", f"{tmp_path}/error.log"]
        tried = subprocess.run([*arguments, "-t"], capture_output=True, text=True, check=False)
        assert tried.returncode == 0, tried.stderr
        with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + 10
                while True:
                    try:
                        socket.create_connection(("127.0.0.1", port), timeout=1).close()
                        break
                    except OSError:
                        assert time.monotonic() < deadline, (tmp_path / "error.log").read_text()
                        time.sleep(0.05)
                yield Proxy(gateway, port, tmp_path / "fullchain.pem")
            finally:
                process.terminate()


def test_a_pane_is_read_through_nginx_as_it_is_printed(proxy: Proxy) -> None:
    """Each byte comes when it is printed, not when a buffer is full; uncompressed; for minutes of silence."""
    ticket = tickets.create(proxy.gateway.database, title="streams")
    path = proxy.gateway.pane_log(ticket.id)
    path.write_bytes(b"begin")
    peer, file, status, head = proxy.open("GET", f"/api/ticket/{ticket.id}/stream")
    assert status == 200
    assert b"content-type: text/event-stream" in head
    assert b"content-encoding" not in head

    def next_pane() -> bytes:
        kind = b""
        for line in file:
            name, _, value = line.strip().partition(b": ")
            kind = value if name == b"event" else kind
            if name == b"data" and kind == b"pane":
                return base64.b64decode(value)
        raise EOFError

    assert next_pane() == b"begin"
    waited = []
    for number in range(10):
        said = f"line {number}\n".encode()
        with path.open("ab", buffering=0) as log:
            log.write(said)
        begun = time.monotonic()
        assert next_pane() == said
        waited.append(time.monotonic() - begun)
    # held back, it would come with the next comment, 15 seconds later, if at all
    assert max(waited) < 5, waited
    file.close()
    peer.close()


def test_a_browser_works_through_nginx_and_a_foreign_page_does_not(proxy: Proxy) -> None:
    """A login's cookie is taken; a change from the page's origin is, from another is not; sizes are the gateway's."""
    ticket = tickets.create(proxy.gateway.database, title="talks")
    ours = {
        "Origin": f"https://{proxy.host}",
        "Content_Type": "application/json",
        "X_CSRF_Token": proxy.gateway.csrf,
    }
    path, body = f"/api/ticket/{ticket.id}/input", b'{"text": "hello"}'
    assert proxy.status("GET", f"/ticket/{ticket.id}") == 200
    assert proxy.status("GET", "/api/tickets", Cookie="mc_session=x") == 401
    assert proxy.status("POST", path, body, **ours) == 202
    assert proxy.status("POST", path, body, **{**ours, "Origin": "https://evil.example"}) == 403
    assert proxy.status("GET", "/", Host="evil.example") == 403
    assert proxy.status("POST", path, b'{"text": "' + b"x" * 1_500_000 + b'"}', **ours) == 413
    assert [m.body for m in messages.of_ticket(proxy.gateway.database, ticket.id)] == ["hello"]


def test_what_a_client_says_of_itself_is_no_word_of_nginx(proxy: Proxy) -> None:
    """Its X-Forwarded-For does not get it more tries, and its -Host no other name."""
    tries = [
        proxy.status("GET", "/login?code=wrong", X_Forwarded_For=f"192.0.2.{n}") for n in range(3)
    ]
    assert tries == [403, 403, 429]
    assert "A login failed, from 127.0.0.1" in proxy.gateway.said()
    assert "192.0.2." not in proxy.gateway.said()
    assert proxy.status("GET", "/healthz", X_Forwarded_Host="evil.example") == 200
    assert proxy.status("GET", "/healthz", Host="evil.example", X_Forwarded_Host=proxy.host) == 403


def told(database: Database) -> dict[str, set[str]]:
    """Each metric with the names of its labels, as the gateway tells them."""
    ticket = tickets.create(database, title="counted")
    messages.enqueue(database, ticket.id, "x")
    found: dict[str, set[str]] = {}
    for line in scrape.said(database).splitlines():
        if match := re.match(r"(\w+)(?:\{(.*)\})? ", line):
            found[match[1]] = set(re.findall(r"(\w+)=", match[2] or ""))
    return found


def expressions() -> list[str]:
    """All that the samples ask Prometheus."""
    yaml = pytest.importorskip("yaml")
    rules = yaml.safe_load((CONTRIB / "prometheus/alerts.yml").read_text(encoding="utf-8"))
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board: dict[str, Any] = json.loads(
        (CONTRIB / "grafana/mission-control.json").read_text(encoding="utf-8")
    )
    found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [*found, *(note["expr"] for note in board["annotations"]["list"])]


def test_the_samples_ask_for_metrics_that_there_are(database: Database) -> None:
    """Each name in an alert, the dashboard and docs/remote.md is one of the gateway's, with its labels; none is left out."""
    there = told(database)
    asked: set[str] = set()
    for expression in expressions():
        for name, labels in re.findall(r"\b((?:mc|process)_\w+)(?:\{([^}]*)\})?", expression):
            assert name in there, expression
            assert set(re.findall(r"(\w+)[=!]", labels)) <= there[name] | {"job"}, expression
            asked.add(name)
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert set(by.split(", ")) <= set().union(*there.values()), expression
    assert asked == set(there)
    page = (CONTRIB.parent / "docs/remote.md").read_text(encoding="utf-8")
    rows = re.findall(r"`((?:mc|process)_\w+)(?:\{([^}]*)\})?`", page)
    assert {name: set(filter(None, labels.split(", "))) for name, labels in rows} == there


def test_the_alerts_are_whole() -> None:
    """Each has a severity, and says what is wrong and what to do; promtool agrees where it is there."""
    yaml = pytest.importorskip("yaml")
    path = CONTRIB / "prometheus/alerts.yml"
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule
            assert rule["annotations"].keys() == {"summary", "description"}, rule
    yaml.safe_load((CONTRIB / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "rules", str(path)], check=True)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_in_the_metrics(database: Database) -> None:
    """Names, kinds and help are by Prometheus' conventions."""
    messages.enqueue(database, tickets.create(database, title="counted").id, "x")
    said = scrape.said(database)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=said, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_can_read_what_the_dashboard_asks(tmp_path: Path) -> None:
    """Each expression of a panel parses; promtool knows rules, so each is made one."""
    rules = [{"record": f"panel:{n}", "expr": asked} for n, asked in enumerate(expressions())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_whole() -> None:
    """Panels have ids of their own and do not lie over one another."""
    board = json.loads((CONTRIB / "grafana/mission-control.json").read_text(encoding="utf-8"))
    cells = [
        (x, y)
        for p in board["panels"] for g in [p["gridPos"]]
        for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])
    ]  # fmt: skip
    assert len(cells) == len(set(cells))
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
    assert max(x for x, _ in cells) < 24
