import pytest
import torch


@pytest.fixture(scope="module")
def fabric():
    lightning_fabric = pytest.importorskip("lightning_fabric")
    return lightning_fabric.Fabric(accelerator="cpu", devices=1)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch, tmp_path):
    """No test depends on what this machine's torch.hub cache holds."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    torch.manual_seed(0)
