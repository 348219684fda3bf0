"""Clusters of several nodes on one machine."""

from __future__ import annotations

from typing import Any


class Grown:
    """A cluster of logical nodes on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster()

    def add(self, cpus: int, gpus: int = 0, **variables: str) -> Any:
        """A node that has joined."""
        return self.cluster.add_node(num_cpus=cpus, num_gpus=gpus, env_vars=variables)

    def kill(self, node: Any) -> None:
        """As a power cut does."""
        self.cluster.remove_node(node, allow_graceful=False)

    @property
    def options(self) -> tuple[str, ...]:
        return ("--address", self.cluster.address, "--no-mlflow")
