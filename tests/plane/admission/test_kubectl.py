"""The tables once more, typed into kubectl: what a user sees of each refusal and each warning."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.plane.admission import (
    test_completion,
    test_endpoints,
    test_pool_create,
    test_pool_edits,
    test_pool_neighbours,
    test_pool_selectors,
    test_reservations,
    test_subnets,
)
from tests.plane.admission.api import path_of
from tests.plane.admission.driver import Cluster
from tests.plane.admission.kubectl import type_in, type_in_together
from tests.plane.admission.rows import Refused
from tests.plane.support import Kubectl
from tests.plane.webhooks import pool

if TYPE_CHECKING:
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABLES = {
    "pool": [
        *test_pool_create.TABLE.values(),
        *test_pool_selectors.TABLE.values(),
        *test_pool_neighbours.TABLE.values(),
        *test_pool_edits.TABLE.values(),
    ],
    "subnet": list(test_subnets.TABLE.values()),
    "reservation": list(test_reservations.TABLE.values()),
    "endpoint": list(test_endpoints.TABLE.values()),
    "completion": list(test_completion.TABLE.values()),
}


def _stands_alone(row: Row) -> bool:
    return (
        row.operation == "CREATE"
        and isinstance(row.expected, Refused)
        and not row.expected.by_schema
        and not row.cluster
    )


def _says_something(row: Row) -> bool:
    return isinstance(row.expected, Refused) or bool(row.expected.warnings)


ALONE = {
    title: [row for row in rows if _stands_alone(row)]
    for title, rows in TABLES.items()
    if any(map(_stands_alone, rows))
}
REST = {
    f"{title} {row.name}": row
    for title, rows in TABLES.items()
    for row in rows
    if _says_something(row) and not _stands_alone(row)
}


@pytest.fixture(scope="module")
def kubectl(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """With one home, so that it asks only once what there is."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    return Kubectl(plane.kubeconfig, tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("rows", ALONE.values(), ids=ALONE.keys())
async def test_each_wrong_object_of_a_file_is_told(api: Api, kubectl: Kubectl, rows: list[Row]) -> None:
    await type_in_together(kubectl, rows)


@pytest.mark.parametrize("row", REST.values(), ids=REST.keys())
async def test_a_refusal_or_warning_is_shown(api: Api, kubectl: Kubectl, row: Row) -> None:
    await type_in(api, kubectl, row)


TYPED = pool(
    "p",
    subnet="10.20.0.0/16",
    ips=["10.20.0.12", "10.20.0.10-10.20.0.11"],
    routes=[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
)


@pytest.mark.parametrize(
    "side", ["false", pytest.param("true", marks=pytest.mark.real_plane)], ids=["client", "server"]
)
async def test_what_is_applied_again_changes_nothing_and_what_is_taken_out_goes(
    api: Api, kubectl: Kubectl, side: str
) -> None:
    async def apply(obj: Object) -> Object:
        await kubectl("apply", f"--server-side={side}", "-f", "-", stdin=json.dumps(obj))
        return await api.done("GET", path_of(obj))

    cluster = Cluster(api, [TYPED])
    try:
        first = await apply(TYPED)
        again = await apply(TYPED)
        assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        less = await apply(pool("p", subnet="10.20.0.0/16", ips=["10.20.0.12"]))
        assert less["spec"]["ips"] == ["10.20.0.12"]
        assert "routes" not in less["spec"]
        assert less["spec"]["ipVersion"] == 4
    finally:
        await cluster.clear()
