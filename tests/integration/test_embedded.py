"""The embedded server as a process: its life, its data, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from celery_batcher.embedded import EmbeddedServer
from celery_batcher.errors import StoreUnavailableError
from eventually import eventually


@pytest.fixture
def server(redis_flavour: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server of its own for each test, of each kind that is here."""
    with EmbeddedServer(binary=redis_flavour.binary, appendfsync="always") as server:
        yield server


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_serves_as_a_plain_process_with_an_append_only_file(server: EmbeddedServer) -> None:
    with Redis.from_url(server.url, decode_responses=True) as client:
        assert client.info("server")["process_id"] == server.pid
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("save") == {"save": ""}


@pytest.mark.parametrize("end", ["kill", "restart"])
def test_its_data_survives_a_crash_and_a_restart(server: EmbeddedServer, end: str) -> None:
    first_pid, url = server.pid, server.url
    with Redis.from_url(url) as client:
        client.set("kept", "yes")

    getattr(server, end)()
    server.start()

    assert server.url == url
    assert server.pid != first_pid
    with Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_starting_a_running_server_changes_nothing(server: EmbeddedServer) -> None:
    pid = server.pid

    server.start()

    assert server.pid == pid


def test_a_crash_from_outside_is_mended_by_start(server: EmbeddedServer) -> None:
    assert server.pid is not None
    first_pid = server.pid
    os.kill(first_pid, signal.SIGKILL)

    def mended() -> None:
        server.start()
        assert server.pid != first_pid

    eventually(mended)


def test_stop_deletes_a_temporary_directory_and_keeps_a_given_one(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    temporary = EmbeddedServer(binary=redis_server.binary)
    given = EmbeddedServer(binary=redis_server.binary, directory=tmp_path / "data")
    temporary.start()
    given.start()
    directory = temporary.directory

    temporary.stop()
    given.stop()

    assert directory is not None
    assert not directory.exists()
    assert (tmp_path / "data" / "server.conf").exists()


def test_options_reach_the_server(redis_server: EmbeddedServer) -> None:
    options = {"maxmemory": "64mb", "client-output-buffer-limit": "pubsub 1mb 1mb 1"}
    with (
        EmbeddedServer(binary=redis_server.binary, appendonly=False, options=options) as server,
        Redis.from_url(server.url, decode_responses=True) as client,
    ):
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 2**20)}
        assert client.config_get("appendonly") == {"appendonly": "no"}


@pytest.mark.parametrize(
    "wrong", [{"no-such-option": "1"}, {"port": "0"}], ids=["option", "no port"]
)
def test_a_server_that_does_not_start_says_why(
    redis_server: EmbeddedServer, wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_batcher.embedded.START_TIMEOUT", 0.5)
    server = EmbeddedServer(binary=redis_server.binary, options=wrong)
    try:
        with pytest.raises(StoreUnavailableError, match="did not start"):
            server.start()
        assert server.pid is None
    finally:
        server.stop()


def test_it_does_not_take_another_server_of_the_port_for_its_own(
    redis_server: EmbeddedServer,
) -> None:
    intruder = EmbeddedServer(binary=redis_server.binary, port=redis_server.port)
    try:
        with pytest.raises(StoreUnavailableError, match="in use"):
            intruder.start()
    finally:
        intruder.stop()


OWNER = """
import sys, threading
from celery_batcher.embedded import EmbeddedServer
server = EmbeddedServer(binary=sys.argv[1])
starter = threading.Thread(target=server.start)
starter.start()
starter.join()
print(server.pid, server.directory, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(redis_server: EmbeddedServer, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that started a server, from a thread that has ended."""
    args = [sys.executable, "-c", OWNER, str(redis_server.binary)]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        args, cwd=tmp_path, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def test_it_ends_when_its_owner_is_killed(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    pid = int(owner.stdout.readline().split()[0])
    assert alive(pid)

    owner.kill()

    eventually(lambda: not alive(pid))


def test_it_ends_and_cleans_up_when_its_owner_exits(owner: subprocess.Popen[str]) -> None:
    assert owner.stdout is not None
    pid, directory = owner.stdout.readline().split()

    owner.communicate()

    assert owner.returncode == 0
    assert not alive(int(pid))
    assert not Path(directory).exists()


def test_a_fork_of_the_owner_leaves_the_server_alone(
    redis_server: EmbeddedServer, tmp_path: Path
) -> None:
    program = OWNER.replace(
        "sys.stdin.read()",
        "import os\nif os.fork() == 0: sys.exit()\nos.wait()\n"
        "import redis\nprint(redis.Redis.from_url(server.url).ping(), server.directory.exists())",
    )
    args = [sys.executable, "-W", "ignore", "-c", program, str(redis_server.binary)]

    done = subprocess.run(args, cwd=tmp_path, text=True, capture_output=True, check=True)

    assert done.stdout.splitlines()[-1] == "True True", done.stderr
