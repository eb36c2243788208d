"""`export --format transformers` of convolutions, of parts of layers, and of other people's factorizations."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.export import say_if_no_folder
from rank_search.export.recorded import recorded
from rank_search.layers import (
    Axis,
    Bases,
    DirectBases,
    Factorization,
    Layer,
    axes_of,
    factorize,
    groups_of,
    installed,
    load_plugin,
    weight_of,
    with_pools,
)
from rank_search.layers import opened_inventory as inventory_of
from rank_search.point import Choice, Point
from rank_search.study import read_problem
from rank_search.testing import GEOMETRIES
from tests.pretrained_models import Example, modules_in, pretrained, token_ids
from tests.story.pretrained_folders import GIVEN, First, of_each, once_each, opened, write, write_searched
from tests.story.test_transformers_models import Near

ODD = ("x", "t1", "t2", "torch", "lambda", "left_0", "in_channels", 'x):\n    raise SystemExit\n"""\ndef f(x')
PATCHES = "vit.embeddings.patch_embeddings.projection"


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules_in(tmp_path / "modules", monkeypatch)


class Twofold(Factorization):
    """W = A·B + C·D, in parameters with dotted names, of which a buffer says the signs: any layer's, ties too."""

    any_geometry = True

    @classmethod
    def axes(cls, layer: Layer) -> tuple[Axis, ...]:
        return (Axis("rank", 1, 4),)

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.left = nn.ParameterList([self.factor(layer.out_features, rank) for _ in range(2)])
        self.right = nn.ParameterList([self.factor(rank, *layer.shape[1:]) for _ in range(2)])
        self.register_buffer("signs", torch.empty(2, dtype=torch.int32))

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        rank = len(self.right[0])
        for number, basis in enumerate((bases.outputs(),) * 2):
            self.left[number].copy_(basis.left[:, number * rank : (number + 1) * rank])
            self.right[number].copy_(-basis.projected[number * rank : (number + 1) * rank].view_as(self.right[number]))
        self.get_buffer("signs").copy_(torch.tensor([-1, -1]))

    def dense(self) -> Tensor:
        pairs = zip(self.left, self.right, self.get_buffer("signs"), strict=True)
        return torch.stack([sign * (a @ b.flatten(1)) for a, b, sign in pairs]).sum(0).view(self.layer.shape)

    def forward(self, x: Tensor) -> Tensor:
        signs = self.get_buffer("signs").unbind()
        parts = [
            self.layer.mix(self.layer.operate(x, b), a * sign)
            for a, b, sign in zip(self.left, self.right, signs, strict=True)
        ]
        outputs = torch.stack(parts, dim=0).sum(dim=0)
        shape = (-1, *[1] * (-1 - self.layer.channels))
        return outputs if self.bias is None else outputs + self.bias.view(shape)


class Oddly(Twofold):
    """Its tensors have names that mean something else elsewhere, or are no names in Python; the first is no weight."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.register_buffer("one", torch.empty(1, dtype=torch.int32))
        self.source = nn.ParameterDict({"x": self.factor(1)})
        for name in ODD:
            self.register_parameter(name, self.factor(1))

    @torch.no_grad()
    def fit(self, weight: Tensor, bases: Bases) -> None:
        super().fit(weight, bases)
        for number, each in enumerate((self.get_buffer("one"), self.source["x"], *map(self.get_parameter, ODD)), 1):
            each.fill_(number)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.get_buffer("one") * self.source["x"]
        for name in ODD:
            scale = scale * self.get_parameter(name) - 1
        return super().forward(x) * scale


class Sized(Twofold):
    """It does something else for large inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[0] < 4 else self.layer.operate(x, self.dense(), self.bias)


class Borrowing(Twofold):
    """It computes with a tensor that is not in its state."""

    def __init__(self, layer: Layer, *, rank: int) -> None:
        super().__init__(layer, rank=rank)
        self.scale = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class Looking(Twofold):
    """It looks at the numbers that it has."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if bool(self.get_buffer("signs")[0] < 0) else x


class InPlace(Twofold):
    """It writes into a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        found[0] = found[0] * 1
        return found


def wav2vec2() -> tuple[nn.Module, Example]:
    """Its convolution for positions has groups and a weight norm."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=12,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=(8, 8),
        conv_kernel=(5, 3),
        conv_stride=(2, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )
    return transformers.Wav2Vec2ForCTC(config).eval(), {"input_values": torch.randn(1, 64)}


def siglip() -> tuple[nn.Module, Example]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipVisionConfig(image_size=8, patch_size=4, **sizes)
    return transformers.SiglipVisionModel(config).eval(), {"pixel_values": torch.randn(1, 3, 8, 8)}


def rank(name: str, rank: int) -> Choice:
    return Choice(name, {"rank": rank})


def tucker(out: int, inner: int) -> Choice:
    return Choice("tucker2", {"rank_out": out, "rank_in": inner})


CLASSIFIER, CAUSAL = "AutoModelForImageClassification", "AutoModelForCausalLM"
CASES: Mapping[str, tuple[str, str, dict[str, Choice]]] = {
    "svd": ("vit", CLASSIFIER, {PATCHES: rank("svd", 3), "vit.layers.0.attention.q_proj": rank("svd", 3)}),
    "svd-spatial": ("vit", CLASSIFIER, {PATCHES: rank("svd-spatial", 3)}),
    "tucker2": ("vit", CLASSIFIER, {PATCHES: tucker(4, 2)}),
    "cp": ("vit", CLASSIFIER, {PATCHES: rank("cp", 3)}),
    "whisper": (
        "whisper",
        "AutoModelForSpeechSeq2Seq",
        {"model.encoder.conv1": tucker(4, 2), "model.encoder.conv2": rank("cp", 2), "proj_out": rank("svd", 4)},
    ),
    "whisper-svd": (
        "whisper",
        "AutoModelForSpeechSeq2Seq",
        {"model.encoder.conv1": rank("svd", 2), "model.encoder.conv2": rank("svd", 2)},
    ),
    "wav2vec2": (
        "wav2vec2",
        "AutoModelForCTC",
        {
            "wav2vec2.encoder.pos_conv_embed.conv": rank("svd", 2),
            "wav2vec2.feature_extractor.conv_layers.1.conv": rank("svd", 3),
        },
    ),
    "parts": (
        "gpt2",
        CAUSAL,
        {
            "transformer.h.0.attn.c_attn.1of3": rank("svd", 3),
            "transformer.h.0.attn.c_attn.3of3": rank("twofold", 2),
            "transformer.h.1.mlp.c_fc": rank("svd", 2),
            "lm_head": rank("svd", 5),
        },
    ),
    "others": ("vit", CLASSIFIER, {PATCHES: rank("twofold", 2), "classifier": rank("twofold", 1)}),
    "odd-names": ("vit", CLASSIFIER, {PATCHES: rank("oddly", 2), "classifier": rank("oddly", 1)}),
    "odd-names-tied": ("gpt2", CAUSAL, {"lm_head": rank("oddly", 3)}),
    "others-tied": ("gpt2", CAUSAL, {"lm_head": rank("twofold", 3), "transformer.wpe": rank("twofold", 2)}),
}
PLUGINS: Mapping[str, type[Factorization]] = {
    **{name: load_plugin(name) for name in ("svd", "svd-spatial", "tucker2", "cp")},
    **{each.__name__.lower(): each for each in (Twofold, Oddly, Sized, Borrowing, Looking, InPlace)},
}
MADE: Mapping[str, Callable[[], tuple[nn.Module, Example]]] = {"wav2vec2": wav2vec2, "siglip": siglip}


def network(name: str) -> tuple[nn.Module, Example]:
    return MADE[name]() if name in MADE else pretrained(name)


def cut(model: nn.Module, example: Example, choices: Mapping[str, Choice]) -> nn.Module:
    split = ["transformer.h.0.attn.c_attn:3"] if any("of3" in name for name in choices) else []
    layers = inventory_of(model, example, split=split).layers
    return factorize(
        model,
        Point(choices),
        layers,
        PLUGINS,
        lambda name: DirectBases(weight_of(model, name), groups=groups_of(model, name)),
    )


class Written:
    """A model that was cut, and the folder that transformers opens."""

    def __init__(self, case: str, folder: Path) -> None:
        name, self.auto, self.choices = CASES[case]
        self.dense, self.example = network(name)
        self.small, self.path = cut(self.dense, self.example, self.choices), folder / "small"
        write(self.small, Near(self.dense, self.example), self.path)

    def opened(self, path: Path | None = None, **options: Any) -> Any:
        return opened(path or self.path, self.auto, **options)

    def inputs(self) -> Iterable[Example]:
        """The example, and three such."""
        yield self.example
        more = {
            name: torch.cat([each, each.flip(-1), each.roll(1, -1)]) if isinstance(each, Tensor) else each
            for name, each in self.example.items()
        }
        yield more


made = once_each(Written)
written = of_each(CASES)


@torch.no_grad()
def test_what_transformers_opens_gives_the_models_outputs(written: Written) -> None:
    back = written.opened()
    assert not back.training
    for inputs in written.inputs():
        found, wanted, dense = (model(**inputs).logits for model in (back, written.small, written.dense))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found, dense, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_it_has_the_state_of_the_model_and_can_be_saved_again(written: Written, tmp_path: Path) -> None:
    back, state = written.opened(), written.small.state_dict()
    assert {*back.state_dict()} == {*state}
    assert all(torch.equal(each, state[name]) for name, each in back.state_dict().items())
    back.tie_weights()
    back.save_pretrained(tmp_path / "again")
    again = written.opened(tmp_path / "again")
    for model in (again, copy.deepcopy(again)):
        found, wanted = (each(**written.example).logits for each in (model, written.small))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["svd", "cp", "whisper", "parts", "others-tied"])
@torch.no_grad()
def test_it_opens_in_half_precision(case: str, made: Callable[[str], Written]) -> None:
    written = made(case)
    back, small = written.opened(dtype=torch.bfloat16), copy.deepcopy(written.small).to(torch.bfloat16)
    assert {each.dtype for each in back.parameters()} == {torch.bfloat16}
    halves = {
        name: each.bfloat16() if isinstance(each, Tensor) and each.is_floating_point() else each
        for name, each in written.example.items()
    }
    torch.testing.assert_close(back(**halves).logits, small(**halves).logits, rtol=0, atol=0)


@pytest.mark.parametrize("case", ["cp", "parts", "others-tied"])
def test_it_has_the_gradients_of_the_model(case: str, made: Callable[[str], Written]) -> None:
    written = made(case)
    back, small = written.opened(), copy.deepcopy(written.small)
    for model in (back, small):
        model(**written.example).logits.square().mean().backward()
    wanted = dict(small.named_parameters())
    for name, each in back.named_parameters():
        torch.testing.assert_close(each.grad, wanted[name].grad, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_images_of_other_sizes_are_taken(made: Callable[[str], Written]) -> None:
    written = made("tucker2")
    images = torch.randn(2, 3, 24, 20)
    found, wanted = (
        model(pixel_values=images, interpolate_pos_encoding=True).logits for model in (written.opened(), written.small)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("case", "given"), [("whisper", "input_features"), ("parts", "input_ids")])
@torch.no_grad()
def test_it_generates_with_its_cache(case: str, given: str, made: Callable[[str], Written]) -> None:
    written = made(case)
    back, generator = written.opened(), torch.Generator().manual_seed(3)
    inputs = torch.randn(2, 8, 24, generator=generator) if case == "whisper" else token_ids(2, 5)
    found = [back.generate(**{given: inputs}, use_cache=cached, **GIVEN) for cached in (True, False)]
    assert torch.equal(*found)
    assert torch.equal(found[0], written.small.generate(**{given: inputs}, **GIVEN))  # type: ignore[operator]


def test_it_opens_where_this_package_is_not(made: Callable[[str], Written], tmp_path: Path) -> None:
    cases = {case: made(case) for case in ("whisper", "svd-spatial", "parts", "others")}
    given = {case: (str(each.path), each.auto, each.example) for case, each in cases.items()}
    torch.save(given, tmp_path / "given.pt")
    code = textwrap.dedent("""
        import sys, torch, transformers
        for name in ("rank_search", "rank_search_plugins"):
            sys.modules[name] = None
        given, out = {}, {}
        with torch.no_grad():
            for case, (folder, auto, example) in torch.load("given.pt").items():
                model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True)
                out[case] = model(**example).logits
        torch.save(out, "out.pt")
    """)
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, capture_output=True)
    found = torch.load(tmp_path / "out.pt")
    for case, each in cases.items():
        with torch.no_grad():
            torch.testing.assert_close(found[case], each.small(**each.example).logits, rtol=1e-5, atol=1e-6)


def test_layers_that_compute_the_same_have_one_function(made: Callable[[str], Written]) -> None:
    text = (made("whisper-svd").path / "modeling_low_rank.py").read_text()
    assert text.count("def computed_") == 2  # of strides 1 and 2
    forms = json.loads((made("others").path / "config.json").read_text())["low_rank_forms"]
    assert [each["computes"] for each in forms.values()] == ["computed_0", "computed_1"]
    forms = json.loads((made("others-tied").path / "config.json").read_text())["low_rank_forms"]
    assert forms["transformer.wte"]["source"] == "lm_head"
    assert forms["transformer.wte"]["tensors"] == {}


def test_a_searched_image_classifier_leaves_as_a_folder(tmp_path: Path) -> None:
    model, example = pretrained("vit")
    task = Near(model, example)
    layers = {"include": ["*projection", "*.layers.0.*"], "factorizations": ["svd-spatial", "tucker2", "svd"]}
    small = write_searched(task, tmp_path, layers=layers, training={"epochs": 1})
    back = opened(tmp_path / "small", CLASSIFIER)
    with torch.no_grad():
        for inputs in task.selection():
            torch.testing.assert_close(back(**inputs).logits, small(**inputs).logits, rtol=1e-5, atol=1e-6)


def clip() -> tuple[nn.Module, Example]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text, vision = sizes | {"vocab_size": 32, "max_position_embeddings": 8}, sizes | {"image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    return transformers.CLIPModel(config).eval(), {
        "input_ids": token_ids(2, 5),
        "pixel_values": torch.randn(2, 3, 8, 8),
    }


def test_every_class_that_opens_the_dense_model_opens_the_folder(tmp_path: Path) -> None:
    model, example = clip()
    small = cut(model, example, {"vision_model.embeddings.patch_embedding": rank("svd", 2)})
    write(small, First(model, example), tmp_path / "small")
    wanted = small(**example).logits_per_image
    for auto in ("AutoModel", "AutoModelForZeroShotImageClassification"):
        back = opened(tmp_path / "small", auto)
        torch.testing.assert_close(back(**example).logits_per_image, wanted, rtol=1e-5, atol=1e-6)


def test_what_a_configuration_says_is_no_code(tmp_path: Path) -> None:
    dense, example = pretrained("gpt2")
    dense.save_pretrained(tmp_path / "dense")  # type: ignore[operator]
    path = tmp_path / "dense" / "config.json"
    values = json.loads(path.read_text()) | {"model_type": 'gpt2"\n    raise SystemExit\n    also = "'}
    path.write_text(json.dumps(values))
    model = transformers.GPT2LMHeadModel.from_pretrained(path.parent).eval()
    assert model.config.model_type == values["model_type"]
    small = cut(model, example, {"transformer.h.0.mlp.c_fc": rank("svd", 2)})
    write(small, Near(model, example), tmp_path / "small")
    back = opened(tmp_path / "small")
    torch.testing.assert_close(back(**example).logits, small(**example).logits, rtol=1e-5, atol=1e-6)
    assert back.config.model_type == "low_rank_gpt2"


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plugin", "complaint"),
    [
        ("sized", r"\(Sized, conv2d\), as what its forward does depends on the sizes of its inputs"),
        ("borrowing", r"\(Borrowing, conv2d\), as its forward uses a tensor that is neither a parameter nor a buffer"),
        ("looking", r"\(Looking, conv2d\), as its forward does not run without numbers"),
        ("inplace", r"\(InPlace, conv2d\), as its forward uses torch.Tensor.__setitem__, which gives nothing"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(plugin: str, complaint: str, tmp_path: Path) -> None:
    model, example = pretrained("vit")
    small = cut(model, example, {PATCHES: rank(plugin, 2), "classifier": rank("twofold", 1)})
    with pytest.raises(ExportError, match=f"cannot write {PATCHES} {complaint}"):
        write(small, Near(model, example), tmp_path / "small")
    assert not [*tmp_path.iterdir()]


def test_attention_that_is_opened_is_refused_by_name(tmp_path: Path) -> None:
    model, example = siglip()
    small = cut(model, example, {"head.attention.q": rank("svd", 2), "embeddings.patch_embedding": rank("looking", 2)})
    both = r"patch_embedding \(Looking, conv2d\), as .*; head\.attention \(OpenedAttention\), as several layers are"
    with pytest.raises(ExportError, match=both):
        write(small, Near(model, example), tmp_path / "small")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("plugin", ["Twofold", "Sized"])
def test_what_cannot_be_written_is_said_before_the_first_trial(
    plugin: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Near(*pretrained("vit"))
    tables = {
        "study": {"name": "s", "trials": 1},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["distance", "params"]},
        "training": {"epochs": 0},
        "layers": {"include": [PATCHES, "*.layers.0.*"], "factorizations": ["svd", f"{__file__}:{plugin}"]},
        "folder": tmp_path,
    }
    rs.run_study(rs.Study.model_validate(tables), task=task)
    told = [text for text in caplog.messages if "--format transformers cannot write models with" in text]
    assert len(told) == (plugin == "Sized")
    for text in told:
        assert f":Sized for {PATCHES} and others of the kind conv2d, as what its forward does depends on" in text
        assert ":Sized for vit.layers.0.attention.q_proj and others of the kind linear, as" in text
        assert " svd for" not in text


def test_attention_that_would_be_opened_is_said_before_the_first_trial(caplog: pytest.LogCaptureFixture) -> None:
    model, example = siglip()
    study = rs.Study.model_validate({"study": {"name": "s"}, "task": {"factory": "(in memory)"}, "folder": Path()})
    say_if_no_folder(read_problem(study, Near(model, example)))
    assert "cannot write models with layers in head.attention (OpenedAttention), as several layers are" in caplog.text


@pytest.mark.parametrize("plugin", installed())
def test_every_form_of_ours_can_be_written(plugin: str) -> None:
    made = load_plugin(plugin)
    alone = Layer("", "conv2d", (16, 8, 3, 3))
    pool = with_pools(dict.fromkeys("ab", alone), {plugin: ("a", "b")}, {plugin: made})
    found = [(layer, axes_of(made, layer)) for layer in (*GEOMETRIES, alone, *pool.values())]
    forms: list[Any] = [made(layer, **{axis.name: int(axis.low) for axis in axes}) for layer, axes in found if axes]
    assert forms
    for form in forms:
        assert {*recorded(form).takes} == {*form.state_dict()}


def test_a_function_is_that_of_its_form() -> None:
    layer = Layer("", "conv1d", (4, 3, 5), stride=(2,), padding=((2, 2),), dilation=(1,), inputs=((1, 3, 9),))
    form: Any = load_plugin("cp")(layer, rank=2)
    with torch.no_grad():
        for each in form.parameters():
            nn.init.normal_(each)
    found, known = recorded(form), dict[str, Any]()
    exec(f"import torch\n{found.function('computed', 'CP.')}", known)
    x = torch.randn(2, 3, 12)
    wanted = torch.nn.functional.conv1d(x, form.dense(), form.bias, stride=2, padding=2)
    torch.testing.assert_close(known["computed"](x, *map(form.get_parameter, found.takes)), wanted)
