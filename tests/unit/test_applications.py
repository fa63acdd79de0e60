"""Applications: what they are called in accounts and labels, and how many addresses each needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain import errors
from allocator.domain.applications import (
    Application,
    application_of,
    label_value,
    parse_application,
    pool_size,
    replicas_of,
)
from allocator.domain.request import Owner
from allocator.domain.selector_rules import is_label_value
from allocator.domain.subnet_annotations import IpNumber
from tests.unit.values import CART

WORDS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(WORDS, min_size=1, max_size=25).map(".".join)


@st.composite
def applications(draw: st.DrawFn) -> Application:
    group = draw(st.one_of(st.just(""), NAMES.map("{}/".format)))
    kind = draw(st.sampled_from(["Deployment", "Pod", "Robot"]))
    return Application(f"{group}v1", kind, draw(WORDS), draw(NAMES))


@pytest.mark.parametrize(
    ("api_version", "text", "group", "version"),
    [
        pytest.param("apps/v1", "apps_v1_Deployment_shop_cart", "apps", "v1", id="a group"),
        pytest.param("v1", "v1_Deployment_shop_cart", "", "v1", id="the core group"),
        pytest.param("example.com/v1", "example.com_v1_Deployment_shop_cart", "example.com", "v1", id="a third party"),
    ],
)
def test_an_application_is_called_as_the_original_calls_it(
    api_version: str, text: str, group: str, version: str
) -> None:
    application = Application(api_version, "Deployment", "shop", "cart")
    assert (application.text, application.group, application.version) == (text, group, version)


@given(applications())
def test_its_text_leads_back_to_it(application: Application) -> None:
    assert parse_application(application.text) == application


@pytest.mark.parametrize("text", ["", "apps_v1_Deployment", "a_b_c_d_e_f", "cart"])
def test_what_is_no_application_is_none(text: str) -> None:
    assert parse_application(text) is None


def test_people_read_kind_namespace_and_name() -> None:
    assert str(CART) == "Deployment shop/cart"


def test_the_owner_of_a_pod_is_its_application() -> None:
    assert application_of(Owner("apps/v1", "Deployment", "cart", CART.uid), "shop") == CART


@given(NAMES)
def test_a_name_of_any_length_fits_into_a_label(name: str) -> None:
    assert is_label_value(label_value(name))
    assert (label_value(name) == name) == (len(name) <= 63)


def test_names_that_begin_alike_have_different_labels() -> None:
    assert label_value("a" * 70) != label_value("a" * 71)


def test_a_label_is_its_own() -> None:
    assert label_value(label_value("a" * 70)) == label_value("a" * 70)


@pytest.mark.parametrize(
    ("kind", "raw", "replicas"),
    [
        pytest.param("Deployment", {"spec": {"replicas": 3}}, 3, id="a Deployment"),
        pytest.param("ReplicaSet", {"spec": {"replicas": None}}, 0, id="a ReplicaSet that names none"),
        pytest.param("StatefulSet", {"spec": {}}, 0, id="a StatefulSet without the key"),
        pytest.param("DaemonSet", {"spec": {}, "status": {"desiredNumberScheduled": 7}}, 7, id="a DaemonSet"),
        pytest.param("DaemonSet", {"spec": {}}, 0, id="a DaemonSet without status"),
        pytest.param("Job", {"spec": {"completions": 5, "parallelism": 2}}, 5, id="a Job with both"),
        pytest.param("Job", {"spec": {"parallelism": 2}}, 2, id="a Job with parallelism"),
        pytest.param("Job", {"spec": {"completions": 0}}, 1, id="a Job without completions"),
        pytest.param("Job", {"spec": {"parallelism": 0}}, 1, id="a Job that is held up"),
        pytest.param("Job", {"spec": {}}, 1, id="a Job with neither"),
        pytest.param("CronJob", {"spec": {"jobTemplate": {"spec": {"parallelism": 4}}}}, 4, id="a CronJob"),
        pytest.param("CronJob", {"spec": {}}, 1, id="a CronJob without template"),
        pytest.param("Pod", {"spec": {}}, 1, id="a pod"),
    ],
)
def test_each_kind_says_how_many_pods_it_runs(kind: str, raw: dict[str, Any], replicas: int) -> None:
    assert replicas_of(kind, raw) == replicas


@pytest.mark.parametrize(
    ("number", "replicas", "size"),
    [
        pytest.param(None, 3, 5, id="the cluster's surplus"),
        pytest.param(IpNumber(1, is_surplus=True), 3, 4, id="its own surplus"),
        pytest.param(IpNumber(0, is_surplus=True), 3, 3, id="no surplus"),
        pytest.param(IpNumber(9, is_surplus=False), 3, 9, id="fixed"),
        pytest.param(IpNumber(9, is_surplus=False), None, 9, id="fixed, and nobody knows the replicas"),
        pytest.param(IpNumber(1, is_surplus=True), 0, 1, id="scaled to nothing"),
    ],
)
def test_a_pool_has_replicas_and_surplus_or_a_fixed_number(
    number: IpNumber | None, replicas: int | None, size: int
) -> None:
    assert pool_size(number, replicas, spare=2) == size


@pytest.mark.parametrize(
    "number", [pytest.param(None, id="no number"), pytest.param(IpNumber(1, is_surplus=True), id="+1")]
)
def test_a_surplus_over_what_nobody_knows_is_refused(number: IpNumber | None) -> None:
    with pytest.raises(errors.Invalid, match="ippool-ip-number to a fixed number"):
        pool_size(number, None, spare=1)
