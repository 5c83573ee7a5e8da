"""The checks of transformers' common model tests, for every explainer class and several kinds of classifier."""

import copy
import inspect
import logging
import os
import subprocess
import sys

import pytest
import torch
from explainer_cases import DiffMask, Ltx, make, smallest
from families import build, pictures, processor
from transformers import AutoConfig, AutoModel, PreTrainedModel

import hf_explain
from hf_explain import AutoModelForImageAttribution, Classifier, ExplainerError, ExplainerForImageClassification
from hf_explain.explaining.auto import EXPLAINERS
from hf_explain.training.config import TrainingConfig
from hf_explain.training.draws import Draws

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FAMILIES = ("vit", "swin", "convnext", "dinov2", "deit", "resnet")
every = pytest.mark.parametrize("cls", EXPLAINERS, ids=lambda c: c.__name__)
everywhere = pytest.mark.parametrize("family", FAMILIES)


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
    assert torch.allclose(plain, checkpointed, atol=1e-5 * float(plain.abs().max()))
    for name, grad in weights.items():
        limit = 1e-5 * float(grad.abs().max()) + 1e-4  # as it is, and as it was prepared
        assert torch.allclose(grad, checkpointed_weights[name], rtol=1e-3, atol=limit), name
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
    script = os.path.join(ROOT, "tests", "support", "ddp_step.py")
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
