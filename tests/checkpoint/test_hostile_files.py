"""Files made to run code when they are read: refused in one line, and nothing is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision

from nanodet_d2.checkpoint import read_weights, weights_only
from nanodet_d2.modeling import GhostNet, ShuffleNetV2, TimmBackbone, TorchvisionBackbone


class Bomb:
    """Its unpickling makes a folder."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def in_zip(path: Path, bomb: Bomb) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "extra": bomb}, path)


def in_legacy(path: Path, bomb: Bomb) -> None:
    content = {"model": {"a": torch.zeros(1)}, "extra": bomb}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def in_pickle(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps({"model": bomb}))


def in_old_pickle(path: Path, bomb: Bomb) -> None:
    """As text (protocol 0), which any reader of lines would start on."""
    path.write_bytes(pickle.dumps(bomb, protocol=0))


def in_tar(path: Path, bomb: Bomb) -> None:
    """As torch before 0.1.10 wrote it: a tar of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(bomb, protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def in_tar_in_zip(path: Path, bomb: Bomb) -> None:
    inner = path.with_suffix(".tar")
    in_tar(inner, bomb)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", inner.read_bytes())
        archive.writestr("archive/version", "3\n")


def in_zipped_pickle(path: Path, bomb: Bomb) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": bomb}, protocol=2))
        archive.writestr("archive/version", "3\n")


def in_trainers_name(path: Path, bomb: Bomb) -> None:
    """Behind a name of a trainer's package, which is read as a placeholder."""
    module = b"cpytorch_lightning.utilities\nget\n"
    call = b"(V%s\ntR" % bomb.target.encode()
    data = b"\x80\x02" + module + call + b"0cos\nmkdir\n" + call + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")


def in_script(path: Path, bomb: Bomb) -> None:
    """A TorchScript archive, which is code by its nature."""
    torch.jit.script(torch.nn.ReLU()).save(str(path))


KINDS = (
    in_zip, in_legacy, in_pickle, in_old_pickle, in_tar, in_tar_in_zip, in_zipped_pickle,
    in_trainers_name, in_script,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", KINDS, ids=lambda x: x.__name__)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".tar", ".safetensors"])
def test_nothing_in_a_file_is_run(tmp_path, write, suffix):
    target = tmp_path / "exploded"
    path = tmp_path / f"bomb{suffix}"
    write(path, Bomb(target))
    with pytest.raises(ValueError, match=f"bomb{suffix} cannot be read safely.*nothing") as error:
        read_weights(str(path))
    assert not target.exists() and "\n" not in str(error.value)


def test_the_bombs_are_live(tmp_path):
    """Or the test above would prove nothing."""
    for write, read in (
        (in_zip, lambda path: torch.load(path, weights_only=False)),
        (in_legacy, lambda path: torch.load(path, weights_only=False)),
        (in_pickle, lambda path: pickle.loads(path.read_bytes())),
        (in_zipped_pickle, lambda path: torch.load(path, weights_only=False)),
    ):
        target, path = tmp_path / write.__name__, tmp_path / "live.pth"
        write(path, Bomb(target))
        try:
            read(path)
        except Exception:
            pass
        assert target.is_dir()


TENSOR = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(16)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        safetensors(b"{}", length=2**60),
        safetensors(b"{" * 1000),
        safetensors(
            json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        ),
    ],
    ids=["empty", "short", "huge header", "deep header", "whole"],
)
def test_files_of_safetensors_are_refused(tmp_path, data):
    """They are not a format of this project, broken or whole."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="weights.safetensors cannot be read safely") as error:
        read_weights(str(path))
    assert "\n" not in str(error.value)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found"):
        read_weights(str(tmp_path))


def downloaded(monkeypatch, folder: Path, name: str) -> Path:
    """The path of a file that torch.hub takes for downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(folder))
    path = folder / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def refused(build, named: str, target: Path) -> None:
    with pytest.raises(ValueError, match=f"weights of .*{named}.*nothing of it was run") as error:
        build()
    assert not target.exists() and "\n" not in str(error.value)
    assert "weights_only=False" not in str(error.value)  # no advice to run it all the same


@pytest.mark.parametrize("write", [in_zip, in_legacy, in_pickle], ids=lambda x: x.__name__)
@pytest.mark.parametrize(
    "build, weights",
    [
        (
            partial(ShuffleNetV2, "0.5x", pretrained=True),
            torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT,
        ),
        (
            partial(TorchvisionBackbone, "mobilenet_v3_small", pretrained=True),
            torchvision.models.MobileNet_V3_Small_Weights.DEFAULT,
        ),
    ],
    ids=["native", "torchvision"],
)
def test_nothing_in_downloaded_weights_is_run(tmp_path, monkeypatch, write, build, weights):
    target = tmp_path / "exploded"
    write(downloaded(monkeypatch, tmp_path, weights.url.rpartition("/")[2]), Bomb(target))
    refused(build, "torchvision's", target)
    if build.func is TorchvisionBackbone:  # the same by the constructor's own argument
        with pytest.raises(pickle.UnpicklingError):
            TorchvisionBackbone(*build.args, weights="DEFAULT")
        assert not target.exists()


def test_nothing_in_what_timm_downloads_is_run(tmp_path, monkeypatch):
    """Neither where its version does not ask torch for that, as up to 0.9."""
    target = tmp_path / "exploded"
    in_zip(downloaded(monkeypatch, tmp_path, "bomb-00000000.pth"), Bomb(target))
    overlay = {"url": "https://nowhere.invalid/bomb-00000000.pth", "hf_hub_id": None}
    build = partial(TimmBackbone, "resnet18", pretrained=True, pretrained_cfg_overlay=overlay)
    refused(build, "resnet18", target)

    def carelessly(*args, weights_only=None, **kwargs):
        return torch.hub.load_state_dict_from_url(*args, **kwargs)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", carelessly)
    refused(build, "resnet18", target)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: (
        torch.hub.load_state_dict_from_url(overlay["url"])
    ))  # fmt: skip
    refused(partial(GhostNet, pretrained=True), "ghostnet_100", target)


def test_nothing_in_a_file_for_timm_is_run(tmp_path, monkeypatch):
    """Neither where its version reads it carelessly, as some of 1.0 do."""
    target, path = tmp_path / "exploded", tmp_path / "bomb.pth"
    in_zip(path, Bomb(target))
    build = partial(TimmBackbone, "resnet18", checkpoint_path=str(path))
    refused(build, "bomb.pth", target)
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict",
        lambda path, *_, **__: torch.load(path, weights_only=False),
    )
    refused(build, "bomb.pth", target)


def test_downloaded_weights_without_a_bomb_are_loaded(tmp_path, monkeypatch):
    """With what torchvision's own constructors do to them: here names and parts change."""
    for name in ("shufflenet_v2_x0_5", "googlenet"):
        weights = torchvision.models.get_model_weights(name).DEFAULT
        options = dict(init_weights=False, aux_logits=True) if name == "googlenet" else {}
        theirs = torchvision.models.get_model(name, **options)
        path = downloaded(monkeypatch, tmp_path, weights.url.rpartition("/")[2])
        torch.save(theirs.state_dict(), path)
        ours = TorchvisionBackbone(name, pretrained=True)
        found = dict(ours.network.named_parameters())
        assert all(torch.equal(found[k], v) for k, v in theirs.named_parameters() if k in found)
    assert torch.equal(
        ShuffleNetV2("0.5x", pretrained=True).stem.weight,
        torchvision.models.shufflenet_v2_x0_5(weights="DEFAULT").conv1[0].weight,
    )


def test_the_environment_is_left_as_it_was(tmp_path, monkeypatch):
    force, unforce = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(force, raising=False)
    monkeypatch.setenv(unforce, "1")
    target, path = tmp_path / "exploded", tmp_path / "bomb.pth"
    in_zip(path, Bomb(target))
    with pytest.raises(pickle.UnpicklingError), weights_only():
        torch.load(path)
    assert not target.exists()
    assert force not in os.environ and os.environ[unforce] == "1"
