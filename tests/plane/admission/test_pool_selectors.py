"""Creating a SpiderIPPool: whom it serves, through the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import allowed, create, invalid, labelled, named
from tests.plane.webhooks import pool

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

V4 = "10.20.0.0/16"
_LONG = "x" * 64
EXPRESSION = {
    "In without values": ({"key": "rack", "operator": "In"}, "Required", "values", "In needs values"),
    "NotIn without values": ({"key": "rack", "operator": "NotIn", "values": []}, "Required", "values", "needs values"),
    "Exists with values": (
        {"key": "rack", "operator": "Exists", "values": ["a"]},
        "Forbidden",
        "values",
        "Exists takes no values",
    ),
    "DoesNotExist with values": (
        {"key": "rack", "operator": "DoesNotExist", "values": ["a"]},
        "Forbidden",
        "values",
        "DoesNotExist takes no values",
    ),
    "an unknown operator": ({"key": "rack", "operator": "Near"}, "Invalid", "operator", "is no operator"),
    "a bad key": ({"key": "-rack", "operator": "Exists"}, "Invalid", "key", "is no label key"),
    "a long key": ({"key": _LONG, "operator": "Exists"}, "Invalid", "key", "is no label key"),
    "a bad value": ({"key": "rack", "operator": "In", "values": ["a b"]}, "Invalid", "values[0]", "is no label value"),
}
LABEL = {
    "a bad key": ("rack/", "a", "spec.{}.matchLabels", "is no label key"),
    "a bad prefix": ("Example.com/rack", "a", "spec.{}.matchLabels", "is no label key"),
    "a bad value": ("rack", "-a", "spec.{}.matchLabels[rack]", "is no label value"),
    "a long value": ("rack", _LONG, "spec.{}.matchLabels[rack]", "is no label value"),
}
SELECTORS = [
    *(
        create(
            f"20: {key} with {how}",
            pool("p", subnet=V4, **{key: {"matchExpressions": [expression]}}),
            invalid((kind, f"spec.{key}.matchExpressions[0].{part}", words)),
        )
        for key in ("podAffinity", "nodeAffinity", "namespaceAffinity")
        for how, (expression, kind, part, words) in EXPRESSION.items()
    ),
    *(
        create(
            f"20: a label of {key} with {how}",
            pool("p", subnet=V4, **{key: {"matchLabels": {label: value}}}),
            invalid(("Invalid", path.format(key), words)),
        )
        for key in ("podAffinity", "nodeAffinity", "namespaceAffinity")
        for how, (label, value, path, words) in LABEL.items()
    ),
    create(
        "20: an empty podAffinity",
        pool("p", subnet=V4, podAffinity={}),
        invalid(("Invalid", "spec.podAffinity", "is empty")),
    ),
    create("20: an empty nodeAffinity", pool("p", subnet=V4, nodeAffinity={}), allowed()),
    create(
        "20: every operator",
        pool(
            "p",
            subnet=V4,
            podAffinity={
                "matchLabels": {"example.com/rack": "a_b.c", "tier": ""},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["x", ""]},
                    {"key": "b", "operator": "NotIn", "values": ["x"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist", "values": []},
                ],
            },
        ),
        allowed(),
    ),
    create(
        "20: an automatic pool with labels of its own",
        labelled(
            pool(
                "p",
                subnet=V4,
                podAffinity={"matchLabels": {"app": "a", "tier": "b", "ipam.spidernet.io/app-kind": "x"}},
            ),
            **{"ipam.spidernet.io/owner-application-name": "cart"},
        ),
        invalid(
            ("Invalid", "spec.podAffinity", '"app": is no label of an automatic pool'),
            ("Invalid", "spec.podAffinity", '"tier": is no label of an automatic pool'),
        ),
    ),
    create(
        "20: an automatic pool with expressions",
        labelled(
            pool("p", subnet=V4, podAffinity={"matchExpressions": [{"key": "a", "operator": "Exists"}]}),
            **{"ipam.spidernet.io/owner-application-name": "cart"},
        ),
        invalid(("Invalid", "spec.podAffinity", "takes no matchExpressions")),
    ),
    create(
        "20: an automatic pool with the five labels",
        labelled(
            pool(
                "p",
                subnet=V4,
                podAffinity={
                    "matchLabels": {
                        f"ipam.spidernet.io/app-{part}": "x"
                        for part in ("api-group", "api-version", "kind", "namespace", "name")
                    }
                },
            ),
            **{"ipam.spidernet.io/owner-application-name": "cart"},
        ),
        allowed(),
    ),
    *(
        create(
            f"20: a multusName that is {how}",
            pool("p", subnet=V4, multusName=["macvlan", name]),
            invalid(("Invalid", "spec.multusName[1]", words)),
        )
        for how, (name, words) in {
            "in capitals": ("netops/Macvlan", 'has "M" in its name'),
            "without a name": ("netops/", "needs a name"),
            "without a namespace": ("/macvlan", "needs a namespace"),
            "too deep": ("a/b/c", 'has "/" in its namespace'),
        }.items()
    ),
    create(
        "20: an empty nodeName and an empty namespaceName",
        pool("p", subnet=V4, nodeName=["n1", ""], namespaceName=[""]),
        invalid(
            ("Invalid", "spec.nodeName[1]", "must be a text that is not empty"),
            ("Invalid", "spec.namespaceName[0]", "must be a text that is not empty"),
        ),
    ),
]

TABLE = named(SELECTORS)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_whom_a_pool_serves(api: Api, row: Row) -> None:
    await carry_out(api, row)
