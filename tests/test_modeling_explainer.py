"""The checks of transformers' common model tests, for every explainer class and several kinds of classifier."""

import copy
import inspect
import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from families import build, pictures, processor
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedModel, pipeline

import hf_explain
from hf_explain import AutoModelForImageAttribution, Classifier, ExplainerError, ExplainerForImageClassification
from hf_explain.auto import EXPLAINERS
from hf_explain.draws import Draws
from hf_explain.modeling.modeling_ranking import add_neighborhood
from hf_explain.modeling.slopes import slopes
from hf_explain.objectives import find_objective, ranking_loss
from hf_explain.training_config import TrainingConfig

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FAMILIES = ("vit", "swin", "convnext", "dinov2", "deit", "resnet")
Ltx, DiffMask = hf_explain.LtxExplainerForImageClassification, hf_explain.DiffMaskExplainerForImageClassification
every = pytest.mark.parametrize("cls", EXPLAINERS, ids=lambda c: c.__name__)
everywhere = pytest.mark.parametrize("family", FAMILIES)


def make(cls, family="swin", **kwargs):
    """Untrained, but with maps that differ from pixel to pixel and from class to class."""
    options = {"gate_start": 0.0} if cls is DiffMask else {}
    explainer = cls.from_classifier(build(family), processor(64), preset=smallest(cls), **options, **kwargs)
    if cls is Ltx:  # whose masks are one half at first, and whose classes are alike
        for weight in (explainer.head.score.weight, explainer.head.classes.weight):
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(3))
    return explainer


def smallest(cls):
    return "tiny" if "tiny" in cls.presets else "small"


def asked(cls, targets):
    """`targets`, or none where only the prediction is explained."""
    return None if cls is DiffMask else targets


@every
@everywhere
def test_save_load(cls, family, tmp_path):
    explainer = make(cls, family)
    explainer.save_pretrained(tmp_path)
    for load in (cls, ExplainerForImageClassification, AutoModel, AutoModelForImageAttribution):
        again, info = load.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is cls and not info["missing_keys"] and not info["unexpected_keys"]
        for (name, one), (other_name, other) in zip(
            explainer.state_dict().items(), again.state_dict().items(), strict=True
        ):
            assert name == other_name and torch.equal(one, other)
        assert not again.training and not again.classifier.training
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


@every
def test_the_file_holds_the_head_only(cls, tmp_path):
    from safetensors import safe_open

    explainer = make(cls)
    explainer.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        saved = set(file.keys())
    own = {name for name in explainer.state_dict() if not name.startswith("classifier.")}
    assert len(saved) == len(own)
    trunk = "head.trunk."  # transformers writes some families' weights under older names
    assert {n for n in saved if not n.startswith(trunk)} == {n for n in own if not n.startswith(trunk)}


@every
@everywhere
def test_determinism_and_batches(cls, family):
    explainer, x = make(cls, family), pictures(3)
    with torch.no_grad():
        one, two = explainer(x).attributions, explainer(x).attributions
        single = torch.cat([explainer(x[i : i + 1]).attributions for i in range(3)])
    assert torch.equal(one, two) and torch.allclose(one, single, atol=1e-5)


@every
def test_initialization(cls):
    one, same, other = make(cls), make(cls), make(cls, seed=1)
    for (name, a), (_, b), (_, c) in zip(
        *(m.head.named_parameters() for m in (one, same, other)), strict=True
    ):  # fmt: skip
        assert torch.equal(a, b) and torch.isfinite(a).all(), name
        if "trunk." in name or name.endswith((".length", ".start")):  # the classifier's weights; constants
            assert torch.equal(a, c), name
        elif name.endswith(("classes.weight", "score.weight")) and cls is Ltx:  # `make` has drawn them
            continue
        elif name.endswith("bias"):
            assert (a == 0).all(), name
        elif "norm" in name:
            assert (a == 1).all(), name
        else:
            assert not torch.equal(a, c) and a.std() > 0 and a.abs().max() < 10, name
    state = torch.get_rng_state()
    make(cls)
    assert torch.equal(state, torch.get_rng_state())  # only the seed counts, and nobody else's randomness moves


@everywhere
def test_what_explains_the_prediction_only_says_so(family):
    explainer, x = make(DiffMask, family), pictures(2)
    with torch.no_grad():
        output = explainer(x)
        assert torch.allclose(output.logits, explainer.classifier(x), atol=1e-5)
        assert output.attributions.shape == (2, 64, 64) and all(m.std() > 0 for m in output.attributions)
        assert torch.equal(explainer(x, targets=output.targets).attributions, output.attributions)
        for other in ((output.targets + 1) % 5, [[0, 1], [2, 3]]):
            with pytest.raises(ExplainerError, match=r"explains the prediction only .*; leave targets out"):
                explainer(x, targets=other)


@pytest.mark.parametrize("cls", [c for c in EXPLAINERS if c is not DiffMask], ids=lambda c: c.__name__)
@everywhere
def test_output_types_and_targets(cls, family):
    explainer, x = make(cls, family), pictures(2)
    with torch.no_grad():
        output = explainer(x)
        assert output.attributions.shape == (2, 64, 64) and output.attributions.dtype == torch.float32
        assert output.logits.shape == (2, 5) and output.targets.equal(output.logits.argmax(-1))
        assert torch.allclose(output.logits, explainer.classifier(x), atol=1e-5)
        assert all(m.std() > 0 for m in output.attributions)
        several = explainer(x, targets=torch.tensor([[0, 4, 2], [1, 1, 3]]))
        assert several.attributions.shape == (2, 3, 64, 64)
        for targets, columns in ((1, (1, 1)), (torch.tensor([4, 3]), (4, 3)), ([0, 1], (0, 1))):
            one = explainer(x, targets=targets)
            assert one.attributions.shape == (2, 64, 64) and one.targets.tolist() == list(columns)
            expected = explainer(x, targets=torch.tensor(columns)[:, None]).attributions[:, 0]
            assert torch.allclose(one.attributions, expected, atol=1e-4)
        assert torch.allclose(several.attributions[1, 0], several.attributions[1, 1], atol=1e-4)
        assert not torch.allclose(several.attributions[0, 0], several.attributions[0, 1], atol=1e-2)
        assert torch.allclose(explainer(x, targets=4).attributions[0], several.attributions[0, 1], atol=1e-4)
        top = explainer(x, top_k=2)
        assert top.targets.equal(top.logits.topk(2).indices) and top.attributions.shape == (2, 2, 64, 64)
        assert torch.allclose(top.attributions[:, 0], output.attributions, atol=1e-4)
        as_tuple = explainer(x, return_dict=False)
        assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], output.attributions)
    assert tuple(output) == ("attributions", "logits", "targets")


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype(cls, dtype, tmp_path):
    explainer = make(cls)
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path, dtype=dtype)
    assert {p.dtype for p in again.parameters()} == {dtype} == {again.dtype}
    with torch.no_grad():
        output, expected = again(pictures()), explainer(pictures())
    assert output.attributions.dtype == torch.float32
    if dtype == torch.float64:
        assert torch.allclose(output.attributions, expected.attributions, atol=1e-4)
    else:
        assert (
            torch.corrcoef(torch.stack([output.attributions.flatten(), expected.attributions.flatten()]))[0, 1] > 0.99
        )


@every
def test_dtype_of_the_classifier_alone(cls, tmp_path):
    """A bf16 classifier is fingerprinted and loaded again as bf16; the head stays float32."""
    explainer = cls.from_classifier(build("swin").to(torch.bfloat16), processor(64), preset=smallest(cls))
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    assert again.classifier.dtype == torch.bfloat16 and {p.dtype for p in again.head.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


@every
@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_map(cls, device_map, tmp_path):
    explainer = make(cls)
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path, device_map=device_map)
    assert {p.device.type for p in again.parameters()} == {"cpu"}
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


@pytest.mark.parametrize("cls", [c for c in EXPLAINERS if c is not Ltx], ids=lambda c: c.__name__)
@pytest.mark.parametrize("family", ["vit", "swin", "dinov2", "pvt_v2"])
def test_gradient_checkpointing_of_the_classifier(cls, family):
    """The same gradients, from layers that really run twice, still in eval mode."""
    explainer, x = make(cls, family), pictures()

    def gradient():
        explainer.zero_grad()
        pixels = x.clone().requires_grad_(True)
        explainer(pixels, targets=asked(cls, 0)).attributions.square().sum().backward()
        return pixels.grad, {n: p.grad for n, p in explainer.named_parameters() if p.grad is not None}

    plain, weights = gradient()
    explainer.activation_checkpointing_enable()
    explainer.train()
    linears = [m for m in explainer.classifier.modules() if isinstance(m, torch.nn.Linear)]
    calls = []
    handles = [m.register_forward_pre_hook(lambda *_: calls.append(1)) for m in linears]
    checkpointed, checkpointed_weights = gradient()
    twice = len(calls)
    explainer.activation_checkpointing_disable()
    calls.clear()
    gradient()
    for handle in handles:
        handle.remove()
    assert twice > len(calls)
    assert torch.allclose(plain, checkpointed, atol=1e-5)
    for name, grad in weights.items():
        assert torch.allclose(grad, checkpointed_weights[name], rtol=1e-3, atol=1e-4), name
    assert not any(
        m.training for m in explainer.classifier.modules() if not getattr(m, "gradient_checkpointing", False)
    )


@every
def test_attn_implementation(cls, tmp_path):
    make(cls, "vit").save_pretrained(tmp_path)
    for load in (cls, ExplainerForImageClassification, AutoModel):
        for name in ("eager", "sdpa"):
            again = load.from_pretrained(tmp_path, attn_implementation=name)
            assert again.classifier.config._attn_implementation == name
    with torch.no_grad():
        one, two = (load.from_pretrained(tmp_path, attn_implementation=a)(pictures()) for a in ("eager", "sdpa"))
    assert torch.allclose(one.attributions, two.attributions, atol=1e-4)


@every
@pytest.mark.parametrize("size", [(64, 96), (96, 64), (128, 128), (72, 104)])
@pytest.mark.parametrize("family", ["vit", "swin", "convnext", "dinov2"])
def test_sizes(cls, family, size):
    explainer = make(cls, family)
    with torch.no_grad():
        output = explainer(pictures(2, size), targets=asked(cls, [[0, 1], [2, 3]]))
    assert (
        output.attributions.shape == ((2, *size) if cls is DiffMask else (2, 2, *size))
        and torch.isfinite(output.attributions).all()
    )


@every
def test_only_the_head_trains(cls):
    explainer = make(cls, "vit").train()
    assert explainer.head.training and not any(m.training for m in explainer.classifier.modules())
    before = {k: v.clone() for k, v in explainer.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in explainer.parameters() if p.requires_grad], lr=0.1)
    if cls in (Ltx, DiffMask):
        objective = TrainingConfig(counterfactual=1.0 if cls is Ltx else None).objective_for(explainer)
        for step in range(24):  # of diffmask, layers are drawn
            objective.loss(explainer, pictures(), Draws(0, step))[0].backward()
    else:
        explainer(pictures(), targets=[[0, 1], [2, 3]]).attributions.square().mean().backward()
    trains = [(n, p) for n, p in explainer.head.named_parameters() if p.requires_grad]
    unused = [n for n, p in trains if p.grad is None or not p.grad.any()]
    assert unused == [n for n, _ in trains if n.startswith("trunk.vit.layernorm")]  # after the last hidden state
    trains = [(n, p) for n, p in trains if n not in unused]
    optimizer.step()
    after = explainer.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("classifier."))
    moved = [f"head.{n}" for n, _ in trains if "weight" in n]
    assert all(not torch.equal(before[k], after[k]) for k in moved) and moved
    assert all(torch.equal(before[k], after[k]) for k in before if k.removeprefix("head.") not in dict(trains))
    assert all(p.grad is None and not p.requires_grad for p in explainer.classifier.parameters())


@every
@everywhere
def test_gradients_with_respect_to_pixels(cls, family):
    explainer = make(cls, family)
    x = pictures().requires_grad_(True)
    output = explainer(x, targets=asked(cls, 0))
    (gradient,) = torch.autograd.grad(output.attributions.square().sum() + output.logits[:, 0].sum(), x)
    assert gradient.shape == x.shape and (gradient.flatten(1).abs().sum(1) > 0).all()
    assert not explainer(pictures()).logits.requires_grad  # and no graph of the classifier where nobody needs it


@every
def test_deepcopy(cls):
    explainer = make(cls)
    twin = copy.deepcopy(explainer)
    with torch.no_grad():
        assert torch.equal(twin(pictures()).attributions, explainer(pictures()).attributions)
        next(twin.head.parameters()).zero_()
        assert next(explainer.head.parameters()).any()


@every
@pytest.mark.parametrize("family", ["vit", "swin", "convnext"])
def test_torch_compile(cls, family):
    explainer, x = make(cls, family), pictures()
    with torch.no_grad():
        targets = asked(cls, torch.tensor([1, 2]))
        expected = explainer(x, targets=targets)  # also installs transformers' capture hooks
        torch._dynamo.reset()
        whole = family != "swin" and cls is not DiffMask  # which reads the stem by a hook
        compiled = torch.compile(explainer, backend="aot_eager", fullgraph=whole)
        output = compiled(x, targets=targets)
    assert torch.allclose(output.attributions, expected.attributions, atol=1e-5)


@every
def test_forward_signature_and_class_attributes(cls):
    assert list(inspect.signature(cls.forward).parameters)[1:3] == ["pixel_values", "targets"]
    assert cls.main_input_name == "pixel_values" and issubclass(cls, PreTrainedModel)
    assert cls.__bases__ == (ExplainerForImageClassification,)  # inheritance is one deep
    assert AutoConfig.for_model(cls.config_class.model_type).model_type == cls.config_class.model_type


@every
def test_load_in_a_new_process_gives_the_same_maps(cls, tmp_path):
    explainer = make(cls)
    explainer.save_pretrained(tmp_path / "explainer")
    with torch.no_grad():
        torch.save(explainer(pictures()).attributions, tmp_path / "expected.pt")
    code = f"""
import torch, hf_explain
explainer = hf_explain.ExplainerForImageClassification.from_pretrained({str(tmp_path / "explainer")!r})
pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
expected = torch.load({str(tmp_path / "expected.pt")!r})
with torch.no_grad():
    assert torch.allclose(explainer(pictures).attributions, expected, atol=1e-5)
print(type(explainer).__name__)
"""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [cls.__name__]


def test_ddp(tmp_path):
    """Two processes with half the batch each have the gradient of one with all of it."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ddp_step.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
    environment = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "gradient.pt")], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    together = torch.load(tmp_path / "gradient.pt")
    explainer = make(EXPLAINERS[0]).train()
    explainer(pictures(4), targets=0).attributions.square().mean().backward()
    for name, parameter in explainer.head.named_parameters():
        assert torch.allclose(parameter.grad, together[name], rtol=1e-3, atol=1e-5), name


def test_from_classifier_freezes_and_says_so(caplog, monkeypatch):
    model = build("swin").train()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level("WARNING", logger="transformers"):
        explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(
            model, processor(64), preset="tiny"
        )
    assert "SwinForImageClassification: froze" in caplog.text and "eval mode" in caplog.text
    assert explainer.classifier.model is model and not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_presets_have_their_sizes():
    """About .1, 2 and 16 million parameters at ViT-B with 1000 classes."""
    maps = [{"index": i, "channels": 768, "stride": [16.0, 16.0], "prefix": 1} for i in (3, 6, 9, 12)]
    labels = dict.fromkeys(range(1000), "x")
    for preset, low, high in (("tiny", 0.08e6, 0.15e6), ("small", 1.5e6, 2.5e6), ("base", 14e6, 18e6)):
        values = hf_explain.RankingExplainerForImageClassification.presets[preset]
        config = hf_explain.RankingExplainerConfig(feature_maps=maps, id2label=labels, **values)
        with torch.device("meta"):
            head = hf_explain.RankingExplainerForImageClassification(config).head
        assert low < sum(p.numel() for p in head.parameters()) < high, preset


def test_classifier_given_and_classifier_left_out(tmp_path):
    explainer = make(EXPLAINERS[0])
    explainer.save_pretrained(tmp_path)
    same = build("swin")
    again = ExplainerForImageClassification.from_pretrained(tmp_path, classifier=same)
    assert again.classifier.model is same and again.image_processor is not None
    alone = ExplainerForImageClassification.from_pretrained(tmp_path, load_classifier=False)
    assert alone.classifier is None
    with pytest.raises(ExplainerError, match="without its classifier"):
        alone(pictures())
    alone.attach(Classifier(same, processor(64)))
    with torch.no_grad():
        assert torch.equal(alone(pictures()).attributions, explainer(pictures()).attributions)
    with pytest.raises(ExplainerError, match="fingerprint"):
        ExplainerForImageClassification.from_pretrained(tmp_path, classifier=build("swin", seed=5))


def test_a_class_without_conditioning_explains_the_prediction_only():
    explainer, x = make(EXPLAINERS[0]), pictures()
    explainer.config.class_conditional = False
    prediction = explainer(x).targets
    explainer(x, targets=prediction)
    with pytest.raises(ExplainerError, match="explains the prediction only"):
        explainer(x, targets=(prediction + 1) % 5)


def test_one_trainer_step(tmp_path):
    """An explainer is a model like any other: transformers' Trainer trains it with a loss of one's own."""
    from transformers import Trainer, TrainingArguments

    class Regress(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            output = model(inputs["pixel_values"], targets=0)
            loss = (output.attributions - inputs["pixel_values"].mean(1)).square().mean()
            return (loss, output) if return_outputs else loss

    data = [{"pixel_values": picture} for picture in pictures(4)]
    arguments = TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=2, report_to=[], remove_unused_columns=False,
        label_names=[], use_cpu=True, save_steps=2, disable_tqdm=True,
    )  # fmt: skip
    explainer = make(EXPLAINERS[0])
    before = copy.deepcopy(explainer.head.state_dict())
    trainer = Regress(explainer, arguments, train_dataset=data)
    trainer.train()
    assert any(not torch.equal(before[k], v) for k, v in explainer.head.state_dict().items())
    again = ExplainerForImageClassification.from_pretrained(tmp_path / "checkpoint-2")
    for name, value in explainer.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


# ---- models of the user's, and where they are from ----


def from_folder(tmp_path, family="swin"):
    """A classifier that was saved and loaded, so that it has a name."""
    build(family).save_pretrained(tmp_path / "base")
    processor(64).save_pretrained(tmp_path / "base")
    return AutoModelForImageClassification.from_pretrained(tmp_path / "base")


def test_a_model_as_it_was_loaded_is_referred_to(tmp_path):
    explainer = EXPLAINERS[0].from_classifier(from_folder(tmp_path), preset="tiny")
    assert explainer.config.classifier_name_or_path == str(tmp_path / "base")
    explainer.save_pretrained(tmp_path / "explainer")
    assert not (tmp_path / "explainer" / "classifier").exists()
    assert ExplainerForImageClassification.from_pretrained(tmp_path / "explainer").classifier.dtype == torch.float32


@pytest.mark.parametrize("how", ["trained since", "folder gone"])
def test_a_model_that_is_no_longer_what_its_name_says_is_saved_inside(tmp_path, how, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = from_folder(tmp_path)
    if how == "trained since":
        with torch.no_grad():
            model.classifier.bias += 1
    else:
        shutil.rmtree(tmp_path / "base")
    explainer = EXPLAINERS[0].from_classifier(model, processor(64), preset="tiny")
    assert explainer.config.classifier_name_or_path is None and "saved with the explainer" in caplog.text
    explainer.save_pretrained(tmp_path / "explainer")
    again = ExplainerForImageClassification.from_pretrained(tmp_path / "explainer")
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


def test_a_given_classifier_stays_as_it_is(tmp_path):
    make(EXPLAINERS[0]).save_pretrained(tmp_path / "x")
    mine = build("swin")
    again = ExplainerForImageClassification.from_pretrained(tmp_path / "x", classifier=mine, dtype=torch.bfloat16)
    assert again.classifier.model is mine and mine.dtype == torch.float32
    assert again.head.class_maps.classes.weight.dtype == torch.bfloat16
    build("swin").save_pretrained(tmp_path / "moved")
    processor(64).save_pretrained(tmp_path / "moved")
    loaded = Classifier.from_pretrained(str(tmp_path / "moved"))
    ExplainerForImageClassification.from_pretrained(tmp_path / "x", classifier=loaded, dtype=torch.bfloat16)
    assert loaded.dtype == torch.float32  # also one that we loaded for the user
    by_path = ExplainerForImageClassification.from_pretrained(tmp_path / "x", classifier=tmp_path / "moved")
    assert by_path.classifier.name_or_path == str(tmp_path / "moved") and by_path.image_processor is not None


def test_attach_checks_what_it_joins(tmp_path):
    make(EXPLAINERS[0]).save_pretrained(tmp_path)
    alone = ExplainerForImageClassification.from_pretrained(tmp_path, load_classifier=False)
    with pytest.raises(ExplainerError, match="has the fingerprint"):
        alone.attach(Classifier(build("swin", seed=3), processor(64)))
    with pytest.raises(ExplainerError, match="reads the classifier only; omit backbone="):
        alone.attach(Classifier(build("swin"), processor(64)), build("vit").vit)
    assert alone.classifier is None


def with_backbone(classifier_dtype=torch.float32):
    pair = (build("dinov2").dinov2, processor(64, image_mean=[0.4] * 3, image_std=[0.2] * 3))
    return EXPLAINERS[0].from_classifier(
        build("swin").to(classifier_dtype), processor(64), backbone=pair, preset="tiny"
    )


def test_a_backbone_keeps_its_own_dtype(tmp_path):
    explainer = with_backbone(torch.bfloat16)
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    assert again.classifier.dtype == torch.bfloat16 and again.backbone.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)


def test_a_backbone_of_other_weights_is_refused(tmp_path):
    with_backbone().save_pretrained(tmp_path)
    right, wrong = build("dinov2").dinov2, build("dinov2", seed=4).dinov2
    assert ExplainerForImageClassification.from_pretrained(tmp_path, backbone=right).backbone is right
    with pytest.raises(ExplainerError, match="backbone Dinov2Model has the fingerprint"):
        ExplainerForImageClassification.from_pretrained(tmp_path, backbone=wrong)
    wrong.save_pretrained(tmp_path / "backbone")
    with pytest.raises(ExplainerError, match=r"backbone .* has the fingerprint .* give the right one with backbone="):
        ExplainerForImageClassification.from_pretrained(tmp_path)


def test_one_integer_may_be_of_any_kind():
    import numpy as np

    explainer, x = make(EXPLAINERS[0]), pictures(2)
    expected = explainer(x, targets=3)
    for target in (torch.tensor(3), np.int64(3), torch.tensor([3, 3], dtype=torch.int16), np.array([3, 3], np.uint8)):
        found = explainer(x, targets=target)
        assert found.targets.tolist() == [3, 3] and torch.equal(found.attributions, expected.attributions)


@pytest.mark.parametrize(
    "targets, message",
    [
        (True, "type torch.bool are no classes; give None, one integer"),
        ("zebra", "'zebra' are no classes; give"),
        ([[1, 2], [3]], "are no classes; give"),
        (torch.tensor([1.0, 2.0]), "type torch.float32 are no classes; give"),
        ([1, 9], "target 9 is no class; give integers from 0 to 4"),
        ([-1, 0], "target -1 is no class; give"),
        ([1], r"shape \(1,\) for 2 images; give"),
        (torch.zeros(2, 0, dtype=torch.long), r"shape \(2, 0\) for 2 images; give"),
    ],
)
def test_wrong_targets(targets, message):
    with pytest.raises(ExplainerError, match=message):
        make(EXPLAINERS[0])(pictures(2), targets=targets)


def test_targets_and_top_k_exclude_each_other():
    with pytest.raises(ExplainerError, match="both given"):
        make(EXPLAINERS[0])(pictures(2), targets=1, top_k=2)


def test_an_untrained_explainer_says_so(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    explainer = make(EXPLAINERS[0])
    pipeline("image-attribution", model=explainer)
    assert "has not been trained" in caplog.text
    caplog.clear()
    explainer.config.trained_steps = 10
    pipeline("image-attribution", model=explainer)
    assert "trained" not in caplog.text


@pytest.mark.parametrize(
    "option, message",
    [
        ({"hidden_size": 0}, "hidden_size=0; give a positive multiple of 8"),
        ({"hidden_size": 8.0}, "hidden_size=8.0; give"),
        ({"pixel_size": 6}, "pixel_size=6; give a positive multiple of 4"),
        ({"num_blocks": 1.5}, "num_blocks=1.5; give an integer of at least 1"),
    ],
)
def test_wrong_options_of_the_head(option, message):
    with pytest.raises(ExplainerError, match=message):
        make(EXPLAINERS[0], **option)


def test_loading_arguments_belong_to_names():
    with pytest.raises(
        ExplainerError, match="dtype was given with a SwinForImageClassification that is loaded already"
    ):
        make(EXPLAINERS[0], dtype=torch.bfloat16)


def test_a_processor_given_beside_a_classifier_is_used():
    classifier = Classifier(build("swin"))
    explainer = EXPLAINERS[0].from_classifier(classifier, processor(64), preset="tiny")
    assert explainer.image_processor is not None and classifier.image_processor is None


# ---- hybrids, which also see the classifier's slope ----

several_kinds = pytest.mark.parametrize("family", ["vit", "swin", "resnet"])


def hybrid(family="swin", **kwargs):
    return make(hf_explain.RankingExplainerForImageClassification, family, hybrid=True, **kwargs)


@several_kinds
def test_a_hybrid_is_saved_and_loaded(family, tmp_path):
    explainer, targets = hybrid(family), [[0, 3], [1, 1]]
    explainer.save_pretrained(tmp_path)
    for load in (ExplainerForImageClassification, AutoModel):
        again, info = load.from_pretrained(tmp_path, output_loading_info=True)
        assert again.config.hybrid is True and not info["missing_keys"] and not info["unexpected_keys"]
        with torch.no_grad():
            one, other = (e(pictures(), targets=targets).attributions for e in (again, explainer))
        assert torch.equal(one, other)


@several_kinds
@torch.no_grad()
def test_a_hybrid_is_the_plain_head_and_what_the_slopes_say(family):
    """It has a few weights more, and mixes slopes into the maps of the others."""
    explainer, plain, x = hybrid(family), make(EXPLAINERS[0], family), pictures()
    missing, more = plain.head.load_state_dict(explainer.head.state_dict(), strict=False)
    assert missing == [] and more and all(name.startswith("mix.") for name in more)
    targets = torch.tensor([[0, 3], [1, 2]])
    found, base = (e(x, targets=targets).attributions for e in (explainer, plain))
    features = explainer.head.decoder(x, explainer.read(x)[1])[-1]
    mixed = explainer.head.mix(base, features, slopes(explainer.classifier, x, targets))
    assert torch.allclose(found, mixed, atol=1e-4) and (mixed - base).std() > 0.1


def test_checkpoints_of_plain_explainers_stay_as_they_are(tmp_path):
    """Also those from before there were hybrids, whose config does not say."""
    explainer = make(EXPLAINERS[0])
    explainer.save_pretrained(tmp_path)
    assert not any("mix" in name for name in explainer.state_dict())
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("hybrid", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    again, info = ExplainerForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert again.config.hybrid is False and not info["missing_keys"] and not info["unexpected_keys"]
    calls = []
    handle = again.classifier.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert torch.equal(again(pictures()).attributions, explainer(pictures()).attributions)
    handle.remove()
    assert len(calls) == 1  # it pays for no slope


@several_kinds
@torch.no_grad()
def test_a_hybrid_explains_several_classes_as_one_by_one(family):
    explainer, x = hybrid(family), pictures(3)
    several = explainer(x, targets=[[0, 4, 2], [1, 1, 3], [2, 0, 4]]).attributions
    assert several.shape == (3, 3, 64, 64) and torch.isfinite(several).all()
    for t, column in enumerate(([0, 1, 2], [4, 1, 0], [2, 3, 4])):
        assert torch.allclose(explainer(x, targets=column).attributions, several[:, t], atol=1e-4)
    assert not torch.allclose(several[0, 0], several[0, 1], atol=1e-2)
    assert torch.allclose(several[1, 0], several[1, 1], atol=1e-4)


@several_kinds
@torch.no_grad()
def test_a_hybrid_never_depends_on_the_batch(family):
    explainer, x = hybrid(family), pictures(3)
    together = explainer(x, targets=[[0, 1]] * 3).attributions
    alone = torch.cat([explainer(x[i : i + 1], targets=[[0, 1]]).attributions for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_hybrid_works_where_gradients_are_off(context):
    explainer = hybrid("vit")
    expected = explainer(pictures(), targets=[[0, 1], [2, 3]]).attributions
    assert expected.requires_grad  # by the head's weights
    with context():
        found = explainer(pictures(), targets=torch.tensor([[0, 1], [2, 3]])).attributions
    assert not found.requires_grad and torch.allclose(found, expected.detach(), atol=1e-5)


def test_a_hybrid_of_a_bf16_classifier(tmp_path):
    make_hybrid = hf_explain.RankingExplainerForImageClassification.from_classifier
    explainer = make_hybrid(build("swin").to(torch.bfloat16), processor(64), preset="tiny", hybrid=True)
    explainer.save_pretrained(tmp_path)
    again = ExplainerForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        one, other, full = (e(pictures(), targets=1).attributions for e in (explainer, again, hybrid("swin")))
    assert (
        explainer.head.mix.weigh.weight.dtype == torch.float32 == one.dtype and again.classifier.dtype == torch.bfloat16
    )
    assert torch.equal(one, other)
    assert torch.corrcoef(torch.stack([one.flatten(), full.flatten()]))[0, 1] > 0.98


@several_kinds
def test_only_the_head_of_a_hybrid_trains(family):
    """By the loss it is trained with: every weight of the head, the mix's too, and none of the classifier."""
    explainer = hybrid(family).train()
    before = {name: p.clone() for name, p in explainer.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in explainer.parameters() if p.requires_grad], lr=1e-2)
    loss, _ = ranking_loss(explainer, pictures(2), Draws(0), objective=find_objective("default", budgets=4))
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is None for p in explainer.classifier.parameters())
    assert all(p.grad.abs().sum() > 0 for p in explainer.head.mix.parameters())
    optimizer.step()
    moved = {name for name, p in explainer.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.startswith("head.")}


def test_the_loss_trains_the_mix():
    """With nothing but the weights of the slopes free, deletion and insertion of the same pictures improve."""
    explainer, x = hybrid("resnet").train(), pictures(2)
    with torch.no_grad():  # the logits of a random classifier hardly move; these do
        for p in explainer.classifier.model.classifier.parameters():
            p.mul_(20)
    objective = find_objective("default", budgets=4, grids=(16, 16), references=("black",), noise=0.0, runner_up=0.0)
    optimizer = torch.optim.AdamW(explainer.head.mix.parameters(), lr=0.2)
    losses = []
    for _ in range(6):
        loss, _ = ranking_loss(explainer, x, Draws(0), 1.0, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02, losses


def test_gradients_with_respect_to_pixels_of_a_hybrid():
    explainer = hybrid("vit")
    x = pictures().requires_grad_(True)
    (gradient,) = torch.autograd.grad(explainer(x, targets=0).attributions.square().sum(), x)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_hybrid_is_true_or_false():
    with pytest.raises(ExplainerError, match="hybrid=1; give True or False"):
        make(EXPLAINERS[0], hybrid=1)


def test_a_hybrid_needs_to_know_how_colors_are_written():
    with pytest.raises(ExplainerError, match="hybrid=True shows the classifier black and white pictures"):
        hf_explain.RankingExplainerForImageClassification.from_classifier(build("resnet"), preset="tiny", hybrid=True)


def test_slope_references_travel_with_the_checkpoint(tmp_path):
    """A hybrid means what it was trained with, whatever the default becomes."""
    explainer = hf_explain.RankingExplainerForImageClassification.from_classifier(
        build("resnet"), processor(64), preset="tiny", hybrid=True, slope_references=["mean", 0.25]
    )
    explainer.save_pretrained(tmp_path)
    again = hf_explain.RankingExplainerForImageClassification.from_pretrained(tmp_path)
    assert again.config.slope_references == ["mean", 0.25] and again.head.mix.weigh.out_channels == 2 * 3
    torch.testing.assert_close(again(pictures(2)).attributions, explainer(pictures(2)).attributions)


# ---- the neighborhood that finished maps gain ----


def plain_neighborhood(values, size):
    """One map, pixel by pixel."""
    height, width, reach = *values.shape, size // 2
    means = np.empty_like(values)
    for i, j in np.ndindex(height, width):
        means[i, j] = values[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1].mean()
    return sum((v - v.mean()) / v.std() for v in (values, means))


@pytest.mark.parametrize("size", [3, 15])
def test_the_mean_of_the_neighborhood_is_added(size):
    maps = torch.randn(2, 2, 12, 20)
    found = add_neighborhood(maps, size)
    for i, j in np.ndindex(2, 2):
        expected = plain_neighborhood(maps[i, j].double().numpy(), size)
        np.testing.assert_allclose(found[i, j].numpy(), expected, atol=1e-5)
    assert add_neighborhood(maps, 1) is maps
    assert torch.equal(add_neighborhood(torch.zeros(1, 1, 4, 4), 3), torch.zeros(1, 1, 4, 4))  # nothing to divide by


def test_an_object_comes_before_a_stray_pixel():
    maps = torch.zeros(1, 1, 32, 32)
    maps[..., 8:16, 8:16], maps[..., 28, 28] = 1.0, 1.1
    assert maps.flatten().argmax() == 28 * 32 + 28
    row, column = divmod(int(add_neighborhood(maps, 9).flatten().argmax()), 32)
    assert 8 <= row < 16 and 8 <= column < 16


def test_the_neighborhood_is_of_finished_maps_only(tmp_path):
    """Training does not see it; the checkpoint carries it, and it can be changed."""
    explainer, plain, x = hybrid(neighborhood=5), hybrid(), pictures()
    with torch.no_grad():
        one, other = (float(ranking_loss(e, x, Draws(seed=0))[0]) for e in (explainer, plain))
        assert one == other
        raw = plain(x, targets=[[0, 3], [1, 2]]).attributions
        found = explainer(x, targets=[[0, 3], [1, 2]]).attributions
        assert torch.equal(found, add_neighborhood(raw, 5)) and not torch.equal(found, raw)
        explainer.save_pretrained(tmp_path)
        again = ExplainerForImageClassification.from_pretrained(tmp_path)
        assert torch.equal(again(x, targets=[[0, 3], [1, 2]]).attributions, found)
        again.config.neighborhood = 1
        assert torch.equal(again(x, targets=[[0, 3], [1, 2]]).attributions, raw)


@pytest.mark.parametrize("size", [0, 2, -3, 1.0, True, "5"])
def test_the_neighborhood_is_an_odd_number(size):
    with pytest.raises(ExplainerError, match="give an odd number of pixels, 1 for none"):
        make(EXPLAINERS[0], neighborhood=size)
