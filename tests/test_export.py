"""Every form answers as the model does, carries what predicting needs, and is refused whole when it does not."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import vit
from tests.helpers import untyped
from vit import bundle
from vit.data.images import Preprocessing
from vit.export import FORMATS, Exported, _Form, export, main
from vit.layers import (
    Block,
    ClassToken,
    ConformerBlock,
    ConvStem,
    DistilledHead,
    Head,
    LayerNorm,
    MapPool,
    MaxPool,
    MeanPool,
    Mlp,
    NoPositions,
    SelfAttention,
    SwiGLU,
)
from vit.models import CNN, Backbone, ViT

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("cat", "dog", "鳥")
PREPROCESSING = Preprocessing((8, 12), 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def net(block=Block, head=Head, qk_norm=None, depth: int = 1, pool=ClassToken, options=None, **backbone) -> ViT:
    """4x4 patches of an 8x12 picture, drop path on: the copy that is exported must not train."""
    made = partial(block, mixer=partial(SelfAttention, num_heads=2, qk_norm=qk_norm), **(options or {}))
    body = partial(Backbone, patch_size=4, embed_dim=16, depth=depth, block=made, drop_path=0.5, **backbone)
    return ViT((8, 12), 3, 3, body, head if head is DistilledHead else partial(head, pool=pool))


NETS = {
    "vit": net,
    "hybrid": partial(net, block=ConformerBlock, patch_embed=ConvStem, pool=MeanPool),
    "cnn": partial(CNN, (8, 12), 3, 3, width=0.25),
}


@pytest.fixture(autouse=True)
def _untyped() -> Iterator[None]:
    with untyped():
        yield


def saved(folder: Path, made: nn.Module | None = None) -> Path:
    bundle.save(
        folder, made or net(), classes=CLASSES, preprocessing=PREPROCESSING, metrics={"a": 1}, licence="CC0-1.0"
    )
    return folder


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 8, 12)


@torch.no_grad()
def check_logits(folder: Path, came: Tensor, given: Tensor) -> None:
    expected = vit.load(folder, "cpu").net(given)
    assert expected.std() > 1e-3, "the comparison needs logits worth comparing"
    assert_close(came, expected, rtol=0, atol=1e-5)


def check_known(known: dict[str, str]) -> None:
    """Text that is enough to prepare a picture and name its class."""
    assert tuple(json.loads(known["classes"])) == CLASSES
    assert Preprocessing.from_dict(json.loads(known["preprocessing"])) == PREPROCESSING
    assert json.loads(known["licence"]) == "CC0-1.0"


TRACED = {"vit": "torch-export", "hybrid": "onnx", "cnn": "onnx"}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles, exported in a process of their own: what checks shapes in tests cannot be traced."""
    root = tmp_path_factory.mktemp("traced")
    torch.manual_seed(0)
    for kind, made in NETS.items():
        saved(root / kind, made())
    code = (
        "import sys; from vit.export import main; [main([m, '--format', f]) for m, f in zip(*[iter(sys.argv[1:])] * 2)]"
    )
    pairs = [word for kind, form in TRACED.items() for word in (str(root / kind), form)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *pairs], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (root / "out").write_text(done.stdout)
    return root


def test_says_how_far_the_logits_are(traced: Path) -> None:
    lines = (traced / "out").read_text().splitlines()
    assert len(lines) == len(TRACED)
    for (kind, form), line in zip(TRACED.items(), lines, strict=True):
        path, _, said = line.partition(": max |difference| of the logits ")
        assert Path(path) == traced / kind / "export" / FORMATS[form].name
        assert 0 <= float(said.split()[0]) < 1e-5
        assert said.endswith(" on 1 and 3 random pictures")


@pytest.mark.parametrize("kind", ["hybrid", "cnn"])
def test_onnx_answers_for_any_batch(traced: Path, kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(traced / kind / "export" / "model.onnx")
    check_known(session.get_modelmeta().custom_metadata_map)
    for given in (images(1), images(5)):
        (logits,) = session.run(["logits"], {"images": given.numpy()})
        check_logits(traced / kind, torch.from_numpy(logits), given)


def test_torch_export_answers_for_any_batch(traced: Path) -> None:
    known = {"model.json": ""}
    path = traced / "vit" / "export" / "model.pt2"
    program = torch.export.load(path, extra_files=known).module()
    check_known({name: json.dumps(value) for name, value in json.loads(known["model.json"]).items()})
    for given in (images(1), images(5)):
        check_logits(traced / "vit", program(given), given)
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.pt2"]


EVERY = """
import sys
from functools import partial
import torch
from tests.attention.members import MECHANISMS
from tests.helpers import redrawn
from tests.layers.members import MIXERS
from vit.layers import Block, SelfAttention
from vit.models import Backbone, ViT
mixers = {str(m): partial(SelfAttention, mechanism=m.factory) for m in MECHANISMS} | {str(m): m.factory for m in MIXERS}
shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
for name, mixer in mixers.items():
    backbone = partial(Backbone, patch_size=4, embed_dim=15, depth=1, block=partial(Block, mixer=mixer))
    net = redrawn(ViT((8, 12), 3, 3, backbone)).float()
    print(name, file=sys.stderr)
    program = torch.export.export(net, (torch.zeros(2, 3, 8, 12),), dynamic_shapes=shapes).module()
    for count in (1, 5):
        images = torch.randn(count, 3, 8, 12)
        torch.testing.assert_close(program(images), net(images), rtol=0, atol=1e-5)
"""


@pytest.mark.slow
def test_every_mechanism_and_mixer_answers_for_any_batch() -> None:
    """In a process of its own, as above."""
    done = subprocess.run([sys.executable, "-c", EVERY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("kind", NETS)
def test_one_file_is_the_whole_bundle(tmp_path: Path, kind: str) -> None:
    folder, path = saved(tmp_path / "model", NETS[kind]()), tmp_path / "elsewhere" / "model.safetensors"
    main([str(folder), "--format", "safetensors", "--out", str(path)])
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 9, 13, 3), dtype=np.uint8))
    model = vit.load(path, "cpu")
    assert model.predict(pictures) == vit.load(folder, "cpu").predict(pictures)
    assert model.meta == vit.load(folder, "cpu").meta


def test_a_file_of_weights_alone_is_no_model(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors holds weights alone: expected model\.json beside it"):
        vit.load(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"x\.safetensors is not a safetensors file"):
        vit.load(tmp_path / "x.safetensors")


RMS = partial(nn.RMSNorm, eps=1e-6)
TANH = partial(nn.GELU, approximate="tanh")
TIMM = {
    "plain": {"depth": 2},
    "registers": {"prefix": ("cls", "reg", "reg")},
    "mean": {"prefix": (), "pool": MeanPool},
    "max beside a class token": {"pool": MaxPool},
    "map": {"pool": partial(MapPool, num_heads=2)},
    "no positions": {"pos_embed": NoPositions},
    "distilled": {"prefix": ("cls", "dist"), "head": DistilledHead},
    "query and key norm": {"qk_norm": LayerNorm},
    "layer scale": {"options": {"layer_scale": 0.5}},
    "gelu by tanh": {
        "options": {"mlp": partial(Mlp, act_layer=TANH)},
        "pool": partial(MapPool, num_heads=2, act_layer=TANH),
    },
    "odd width": {"options": {"mlp": partial(Mlp, mlp_ratio=1.7)}},
    "rms norm": {"options": {"norm": RMS}, "norm": RMS},
    "no blocks": {"depth": 0},
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_builds_it_from_the_folder_alone(tmp_path: Path, name: str) -> None:
    import timm

    folder = saved(tmp_path / "model", net(**TIMM[name]))
    export(vit.load(folder, "cpu"), "timm", tmp_path / "timm")
    assert sorted(file.name for file in (tmp_path / "timm").iterdir()) == ["config.json", "model.safetensors"]
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    with torch.no_grad():
        given = images()
        check_logits(folder, theirs(given), given)
    config = theirs.pretrained_cfg
    assert (config["num_classes"], tuple(config["label_names"])) == (3, CLASSES)
    data = timm.data.resolve_model_data_config(theirs)
    assert (data["input_size"], data["crop_pct"]) == ((3, 8, 12), 1.0)
    assert (tuple(data["mean"]), tuple(data["std"])) == (PREPROCESSING.mean, PREPROCESSING.std)
    with safetensors.safe_open(tmp_path / "timm" / "model.safetensors", "pt") as file:
        check_known(file.metadata())


UNEVEN = partial(Block, mixer=partial(SelfAttention, num_heads=2), mlp=partial(Mlp, mlp_ratio=2.0))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (NETS["cnn"], "the form timm is for plain ViTs, the model is a CNN"),
        (NETS["hybrid"], r"has no seat for backbone\.patch_embed \(ConvStem\), .*\(ConformerBlock\)"),
        (partial(net, options={"mlp": SwiGLU}, depth=2), r"no word for .*blocks\.\{0,1\}\.mlp \(SwiGLU\)"),
        (partial(net, early=[(UNEVEN, 1)], depth=2), r"cannot take these weights: wrong shape: blocks\.1\.mlp\.fc1"),
        (partial(net, norm=nn.RMSNorm, options={"norm": nn.RMSNorm}), "timm gives other logits"),  # another epsilon
        (partial(net, qk_norm=nn.RMSNorm), "cannot take these weights: missing: blocks.0.attn.q_norm.bias"),
    ],
)
def test_what_timm_cannot_hold_is_named(tmp_path: Path, made: Callable[[], nn.Module], message: str) -> None:
    folder = saved(tmp_path / "model", made())
    with pytest.raises(ValueError, match=message) as caught:
        main([str(folder), "--format", "timm"])
    assert "\n" not in str(caught.value)
    assert not (folder / "export").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda logits: logits + 0.01, r"safetensors gives other logits: max \|difference\| 0\.01, tolerance 0\.0001"),
        (lambda logits: logits * torch.nan, "other logits: .* nan"),
        (lambda logits: logits[:1], r"expected logits of shape \(3, 3\), the export gave \(1, 3\)"),
    ],
)
def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch, wrong, message: str) -> None:
    def broken(model: bundle.Model) -> Exported:
        return Exported({"": b"content"}, lambda given: wrong(model.net(given)))

    monkeypatch.setitem(FORMATS, "safetensors", _Form("x", broken))
    folder = saved(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        main([str(folder), "--format", "safetensors", "--out", str(tmp_path / "x")])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model"]
    if "0.01" in message:
        assert main([str(folder), "--format", "safetensors", "--out", str(tmp_path / "x"), "--tolerance", "0.1"]) == 0


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_overwritten(tmp_path: Path, form: str) -> None:
    folder, out = saved(tmp_path / "model"), tmp_path / "mine"
    out.write_text("mine")
    with pytest.raises(ValueError, match=r"mine exists and an export overwrites nothing: .* --out"):
        main([str(folder), "--format", form, "--out", str(out)])
    assert out.read_text() == "mine"


def test_a_failing_write_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    model, write = vit.load(saved(tmp_path / "model"), "cpu"), Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "config" in path.name:
            raise OSError("no space left")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        export(model, "timm", tmp_path / "timm")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model"]


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = vit.load(saved(tmp_path / "model", NETS["cnn"]()), "cpu")
    model.net.train().double()
    export(model, "safetensors", tmp_path / "x")
    assert model.net.training
    assert next(model.net.parameters()).dtype == torch.float64
    assert model.net.net.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_missing_package_is_one_line_with_the_command(tmp_path: Path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ValueError, match="ONNX needs onnxscript: pip install onnx onnxruntime onnxscript"):
        main([str(saved(tmp_path / "model")), "--format", "onnx"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format", "pickle"], "invalid choice: 'pickle'.*expected vit export MODEL --format onnx|torch-export"),
        ([], "--format; expected vit export MODEL"),
        (["--format", "timm", "--tolerance", "-1"], "tolerance must be at least 0, got -1"),
    ],
)
def test_errors_say_what_was_expected(tmp_path: Path, args: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main([str(saved(tmp_path / "model")), *args])
    with pytest.raises(ValueError, match="no model in"):
        main([str(tmp_path / "nothing"), "--format", "timm"])
