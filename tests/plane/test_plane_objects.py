"""Create, read, update, delete and patch, as every client of a cluster relies on them."""

import pytest

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.errors import AlreadyExists, ApiError, BadRequest, Conflict, Invalid, NotFound
from allocator.kube.resources import Resource
from devcluster.plane import Plane
from tests.plane.support import config_map, eventually, is_gone, pod, widget

CM = resources.CONFIG_MAPS


async def test_a_created_object_gets_uid_time_and_version(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    made = await kube.create(widgets, widget("one", namespace))
    assert {"uid", "creationTimestamp", "resourceVersion"} <= made["metadata"].keys()
    assert made["metadata"]["generation"] == 1


async def test_generate_name_is_completed_by_the_server(kube: KubeClient, namespace: str) -> None:
    obj = config_map("", namespace, generateName="made-")
    del obj["metadata"]["name"]
    names = {(await kube.create(CM, obj, namespace=namespace))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("made-") and len(name) == 10 for name in names)


async def test_a_taken_name_is_refused(kube: KubeClient, namespace: str) -> None:
    await kube.create(CM, config_map("one", namespace))
    with pytest.raises(AlreadyExists) as refused:
        await kube.create(CM, config_map("one", namespace))
    assert refused.value.message == 'configmaps "one" already exists'


async def test_a_bad_name_is_refused_and_the_field_told(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    with pytest.raises(Invalid) as refused:
        await kube.create(widgets, widget("Not_A_Name", namespace))
    assert [cause["field"] for cause in refused.value.details["causes"]] == ["metadata.name"]
    assert 'Invalid value: "Not_A_Name": a lowercase RFC 1123 subdomain must consist' in refused.value.message


async def test_a_namespace_that_is_not_there_is_told(kube: KubeClient) -> None:
    with pytest.raises(NotFound) as refused:
        await kube.create(CM, config_map("one", "nowhere"))
    assert refused.value.message == 'namespaces "nowhere" not found'


async def test_an_absent_object_is_told_with_its_kind(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    with pytest.raises(NotFound) as refused:
        await kube.get(widgets, "none", namespace=namespace)
    assert refused.value.message == 'widgets.test.example.com "none" not found'
    assert refused.value.details == {"name": "none", "group": "test.example.com", "kind": "widgets"}


async def test_a_replace_from_a_stale_read_conflicts(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    read = await kube.create(widgets, widget("one", namespace))
    await kube.replace(widgets, read | {"spec": {"color": "green"}})
    with pytest.raises(Conflict) as refused:
        await kube.replace(widgets, read | {"spec": {"color": "red", "size": 2}})
    assert refused.value.message == (
        'Operation cannot be fulfilled on widgets.test.example.com "one": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


async def test_a_custom_object_is_not_replaced_without_a_version(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace))
    with pytest.raises(Invalid, match="must be specified for an update"):
        await kube.replace(widgets, widget("one", namespace))


async def test_a_built_in_object_is_replaced_without_a_version(kube: KubeClient, namespace: str) -> None:
    await kube.create(CM, config_map("one", namespace))
    after = await kube.replace(CM, config_map("one", namespace) | {"data": {"a": "b"}})
    assert after["data"] == {"a": "b"}


async def test_a_replace_that_means_another_uid_conflicts(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    read = await kube.create(widgets, widget("one", namespace))
    other = read["metadata"] | {"uid": "11111111-2222-3333-4444-555555555555"}
    with pytest.raises(Conflict, match="UID in precondition"):
        await kube.replace(widgets, read | {"metadata": other})


async def test_generation_counts_changes_of_the_spec_only(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    labelled = await kube.patch(widgets, "one", {"metadata": {"labels": {"a": "b"}}}, namespace=namespace)
    assert labelled["metadata"]["generation"] == 1
    noted = await kube.patch(widgets, "one", {"status": {"note": "x"}}, namespace=namespace, subresource="status")
    assert noted["metadata"]["generation"] == 1
    grown = await kube.patch(widgets, "one", {"spec": {"size": 5}}, namespace=namespace)
    assert grown["metadata"]["generation"] == 2


async def test_the_main_endpoint_ignores_status_and_status_ignores_the_rest(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    made = await kube.create(widgets, widget("one", namespace) | {"status": {"note": "at birth"}})
    assert "status" not in made
    main = await kube.patch(widgets, "one", {"status": {"note": "main"}}, namespace=namespace)
    assert "status" not in main
    body = {"status": {"note": "status"}, "spec": {"size": 9}, "metadata": {"labels": {"a": "b"}}}
    status = await kube.patch(widgets, "one", body, namespace=namespace, subresource="status")
    assert status["status"] == {"note": "status"}
    assert status["spec"]["size"] == 1
    assert "labels" not in status["metadata"]


async def test_an_update_that_changes_nothing_writes_nothing(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    made = await kube.create(widgets, widget("one", namespace))
    again = await kube.patch(widgets, "one", {"spec": {"color": "red"}}, namespace=namespace)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_dry_run_changes_nothing(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    made = await kube.create(widgets, widget("one", namespace), dry_run=True)
    assert made["spec"] == {"color": "red", "size": 1}
    assert await is_gone(kube, widgets, "one", namespace)


async def test_a_delete_names_the_object_that_it_means(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    made = (await kube.create(widgets, widget("one", namespace)))["metadata"]
    with pytest.raises(Conflict, match=r'Widget.test.example.com "one": the UID in the precondition \(1111'):
        await kube.delete(widgets, "one", namespace=namespace, uid="11111111-2222-3333-4444-555555555555")
    with pytest.raises(Conflict, match="the ResourceVersion in the precondition"):
        await kube.delete(widgets, "one", namespace=namespace, resource_version="1")
    done = await kube.delete(
        widgets, "one", namespace=namespace, uid=made["uid"], resource_version=made["resourceVersion"]
    )
    assert done["status"] == "Success"
    assert done["details"] == {"name": "one", "group": "test.example.com", "kind": "widgets", "uid": made["uid"]}
    assert await is_gone(kube, widgets, "one", namespace)


async def test_a_finalizer_holds_the_object_until_it_is_taken_off(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    obj = widget("one", namespace)
    obj["metadata"]["finalizers"] = ["test.example.com/wait"]
    await kube.create(widgets, obj)
    dying = await kube.delete(widgets, "one", namespace=namespace)
    assert dying["metadata"]["deletionTimestamp"]
    assert dying["metadata"]["generation"] == 2
    more = {"metadata": {"finalizers": ["test.example.com/wait", "test.example.com/more"]}}
    with pytest.raises(Invalid, match="no new finalizers can be added if the object is being deleted"):
        await kube.patch(widgets, "one", more, namespace=namespace)
    await kube.patch(widgets, "one", {"metadata": {"finalizers": None}}, namespace=namespace)
    assert await is_gone(kube, widgets, "one", namespace)


async def test_a_pod_on_a_node_waits_for_its_kubelet(kube: KubeClient, namespace: str) -> None:
    await kube.create(resources.PODS, pod("one", namespace, nodeName="none", terminationGracePeriodSeconds=40))
    dying = await kube.delete(resources.PODS, "one", namespace=namespace)
    assert dying["metadata"]["deletionGracePeriodSeconds"] == 40
    assert not await is_gone(kube, resources.PODS, "one", namespace)
    await kube.delete(resources.PODS, "one", namespace=namespace, grace_period_s=0)
    assert await is_gone(kube, resources.PODS, "one", namespace)


async def test_a_pod_without_a_node_goes_at_once(kube: KubeClient, namespace: str) -> None:
    body = pod("one", namespace, schedulerName="nobody")
    made = await kube.create(resources.PODS, body)
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["restartPolicy"] == "Always"
    assert made["spec"]["terminationGracePeriodSeconds"] == 30
    await kube.delete(resources.PODS, "one", namespace=namespace)
    assert await is_gone(kube, resources.PODS, "one", namespace)


async def test_a_pod_is_bound_once(kube: KubeClient, namespace: str) -> None:
    await kube.create(resources.PODS, pod("one", namespace, schedulerName="nobody"))
    path = resources.PODS.path(namespace, "one", "binding")
    metadata = {"name": "one", "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": {"kind": "Node", "name": "n1"}}
    await kube.raw("POST", path, body=body)
    bound = await kube.get(resources.PODS, "one", namespace=namespace)
    assert bound["spec"]["nodeName"] == "n1"
    assert [(c["type"], c["status"]) for c in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    with pytest.raises(Conflict, match='already assigned to node "n1"'):
        await kube.raw("POST", path, body=body)


async def test_scale_shows_and_sets_the_size(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    path = widgets.path(namespace, "one", "scale")
    scale = await kube.raw("GET", path)
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 1})
    after = await kube.raw("PUT", path, body=scale | {"spec": {"replicas": 4}})
    assert after["spec"] == {"replicas": 4}
    assert (await kube.get(widgets, "one", namespace=namespace))["spec"]["size"] == 4


async def test_a_daemon_set_is_updated_pod_by_pod_unless_it_says_otherwise(kube: KubeClient, namespace: str) -> None:
    template = {"metadata": {"labels": {"app": "one"}}, "spec": pod("one", namespace, nodeName="none")["spec"]}
    made = await kube.create(
        resources.DAEMON_SETS,
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "one", "namespace": namespace},
            "spec": {"selector": {"matchLabels": {"app": "one"}}, "template": template},
        },
    )
    rolling = {"maxUnavailable": 1, "maxSurge": 0}
    assert made["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}


async def test_a_collection_is_deleted_by_label(kube: KubeClient, namespace: str) -> None:
    for name, color in (("a", "red"), ("b", "red"), ("c", "green")):
        await kube.create(CM, config_map(name, namespace, labels={"color": color}))
    await kube.raw("DELETE", CM.path(namespace), params={"labelSelector": "color=red"})

    async def only_green_left() -> bool:
        items = (await kube.list(CM, namespace=namespace, label_selector="color"))["items"]
        return [item["metadata"]["name"] for item in items] == ["c"]

    await eventually(only_green_left)


async def test_a_json_patch_tests_and_changes(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    good = [{"op": "test", "path": "/spec/size", "value": 1}, {"op": "replace", "path": "/spec/size", "value": 2}]
    assert (await kube.patch(widgets, "one", good, namespace=namespace, form="json"))["spec"]["size"] == 2
    with pytest.raises(Invalid):
        await kube.patch(widgets, "one", good, namespace=namespace, form="json")


async def test_a_merge_patch_with_a_version_is_a_precondition(
    kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    made = await kube.create(widgets, widget("one", namespace))
    version = made["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "spec": {"size": 3}}
    await kube.patch(widgets, "one", patch, namespace=namespace)
    with pytest.raises(Conflict):
        await kube.patch(widgets, "one", patch | {"spec": {"size": 4}}, namespace=namespace)


async def test_a_strategic_patch_merges_containers_by_name(kube: KubeClient, namespace: str) -> None:
    body = pod("one", namespace, schedulerName="nobody")
    body["spec"]["containers"].append({"name": "side", "image": "registry.invalid/side:1"})
    await kube.create(resources.PODS, body)
    patch = {"spec": {"containers": [{"name": "side", "image": "registry.invalid/side:2"}]}}
    after = await kube.patch(resources.PODS, "one", patch, namespace=namespace, form="strategic")
    images = {c["name"]: c["image"] for c in after["spec"]["containers"]}
    assert images == {"main": "registry.invalid/app:1", "side": "registry.invalid/side:2"}


async def test_a_custom_object_takes_no_strategic_patch(kube: KubeClient, widgets: Resource, namespace: str) -> None:
    await kube.create(widgets, widget("one", namespace))
    with pytest.raises(BadRequest) as refused:
        await kube.patch(widgets, "one", {"spec": {"size": 2}}, namespace=namespace, form="strategic")
    assert (refused.value.status, refused.value.reason) == (415, "UnsupportedMediaType")


async def test_server_side_apply_is_refused_plainly_by_the_stand_in(
    plane: Plane, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    if plane.real:
        pytest.skip("a real server applies")
    with pytest.raises(ApiError, match="server-side apply is not served by this development stand-in") as refused:
        await kube.patch(widgets, "one", widget("one", namespace), namespace=namespace, form="apply")
    assert refused.value.status == 415


async def test_defaults_of_a_deployment_are_filled_in(kube: KubeClient, namespace: str) -> None:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template, "replicas": 0},
    }
    made = await kube.create(resources.DEPLOYMENTS, body)
    assert made["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert made["spec"]["revisionHistoryLimit"] == 10
    assert made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    wrong = {"matchLabels": {"app": "y"}}
    with pytest.raises(Invalid, match="`selector` does not match template `labels`"):
        await kube.create(
            resources.DEPLOYMENTS,
            body | {"metadata": {"name": "two", "namespace": namespace}, "spec": body["spec"] | {"selector": wrong}},  # type: ignore[operator]
        )


async def test_an_event_is_one_object_in_both_groups(kube: KubeClient, namespace: str) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "one", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "test",
        "reportingInstance": "test-0",
        "action": "Trying",
        "reason": "Tried",
        "type": "Normal",
        "note": "it was tried",
        "regarding": {"kind": "Pod", "namespace": namespace, "name": "p", "uid": "u"},
    }
    await kube.create(resources.EVENTS, event)
    path = f"/api/v1/namespaces/{namespace}/events"
    found = await kube.raw("GET", path, params={"fieldSelector": "involvedObject.name=p,involvedObject.kind=Pod"})
    assert [item["message"] for item in found["items"]] == ["it was tried"]
    assert (await kube.get(resources.EVENTS, "one", namespace=namespace))["note"] == "it was tried"
