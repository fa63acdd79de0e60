"""The fixtures of tests/plane: these tests drive the same processes on the same API server."""

from tests.plane.conftest import kube, namespace, plane

__all__ = ["kube", "namespace", "plane"]
