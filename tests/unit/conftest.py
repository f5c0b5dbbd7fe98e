"""What the unit tests share: a real PostgreSQL, and a real gateway on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store.db import Database
from tests.unit.gateway import Gateway
from tests.unit.postgres import Cluster, bin_path


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One server for the whole run."""
    programs = bin_path()
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not installed")
    running = Cluster(programs)
    yield running
    running.destroy()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """A fresh database with the schema in it."""
    fresh = Database(cluster.create_database(), application="test")
    yield fresh
    fresh.close()


@pytest.fixture(scope="module")
def shared_gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway that the tests of a module share; each makes tickets of its own."""
    with Gateway(tmp_path_factory.mktemp("gateway"), cluster.create_database()) as running:
        yield running


@pytest.fixture
def fresh_gateway(cluster: Cluster, tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway of a test's own."""
    with Gateway(tmp_path, cluster.create_database()) as running:
        yield running
