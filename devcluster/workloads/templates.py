"""Objects made from the template of their owner."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from allocator.kube.resources import Object

# What apimachinery's rand.SafeEncodeString uses: no vowels, so that no words come out.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def revision_of(template: Object) -> str:
    """Ten characters that differ when the templates do."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:10])


def with_suffix(name: str) -> str:
    return f"{name}-{''.join(secrets.choice(ALPHABET) for _ in range(5))}"


def owner_reference(owner: Object) -> Object:
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_of(owner: Object, *, name: str, labels: Object | None = None, spec: Object | None = None) -> Object:
    """A pod of the owner's template; `labels` and `spec` add to it."""
    template = owner["spec"]["template"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(meta.get("labels") or {}), **(labels or {})},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {**template["spec"], **(spec or {})},
    }
