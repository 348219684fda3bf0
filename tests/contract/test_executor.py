"""Executors are interchangeable: the same sweep gives the same bytes, whoever runs its jobs."""

from __future__ import annotations

import pytest
from workspace import SHARING, Swept, Workspace


@pytest.mark.ray
def test_local_and_ray_give_the_same_bytes(workspace: Workspace, on_ray: Swept) -> None:
    ran = workspace.run("sweep", workspace.write("sharing", SHARING), "--local", "--no-mlflow")
    assert ran.code == 1, ran.err
    assert "5 of 6 points done, 1 failed" in ran.err
    local = workspace.swept("sharing")
    assert local.manifests.keys() == on_ray.manifests.keys()
    for key, manifest in local.manifests.items():
        other = on_ray.manifests[key]
        # One numerics class, else equal bytes are not promised and the test says nothing.
        assert manifest.provenance["numerics"] == other.provenance["numerics"]
        assert (manifest.config, manifest.inputs) == (other.config, other.inputs)
    assert local.payloads == on_ray.payloads
    assert len(local.failures) == 1
    assert local.failures == on_ray.failures
    assert local.table.num_rows > 0
    assert local.table.equals(on_ray.table)
