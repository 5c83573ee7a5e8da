"""The loop: however the batch is split, whatever memory there is, at any precision."""

import pytest
import torch
from training_cases import CONFIG, HELD_OUT, disturb, equal, losses, make, run, too_large

from hf_explain import ExplainerError
from hf_explain.jobs.processes import Processes
from hf_explain.training.held_out import evaluate
from hf_explain.training.objectives import objective as objective_module

# ---- splitting the batch, running out of memory ----


def test_accumulation_changes_rounding_only(whole):
    _, result = run(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    torch.testing.assert_close(losses(result), losses(whole[1]), atol=1e-4, rtol=0)


def test_running_out_of_memory(monkeypatch, whole):
    smaller, _ = run(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    disturb(monkeypatch, too_large(3))
    halved, result = run()
    assert equal(halved, smaller) and not equal(halved, whole[0])
    torch.testing.assert_close(losses(result), losses(whole[1]), atol=1e-4, rtol=0)


def test_a_resumed_run_keeps_the_smaller_micro_batch(monkeypatch, tmp_path):
    smaller, _ = run(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    with monkeypatch.context() as patch:
        disturb(patch, too_large(3))
        run(tmp_path, stop_after=3)
    assert equal(run(tmp_path, resume_from_checkpoint="last")[0], smaller)


def test_one_picture_is_too_much(monkeypatch):
    disturb(monkeypatch, too_large(0))
    with pytest.raises(ExplainerError, match="memory ran out with one picture per forward; take gradient_checkpoint"):
        run()


def test_other_errors_are_not_taken_for_memory(monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a bug")

    disturb(monkeypatch, broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run()


def test_memory_that_runs_out_in_evaluation(monkeypatch):
    explainer, processes = make().to("cpu"), Processes()
    expected = evaluate(explainer, HELD_OUT, CONFIG, processes)
    original, sizes = objective_module.measure, []

    def limited(*arguments, batch_size, **keywords):
        sizes.append(batch_size)
        if batch_size > 8:
            raise torch.OutOfMemoryError("injected")
        return original(*arguments, batch_size=batch_size, **keywords)

    monkeypatch.setattr(objective_module, "measure", limited)
    assert evaluate(explainer, HELD_OUT, CONFIG, processes) == pytest.approx(expected, abs=1e-5)
    assert sizes == [32, 16, 8, 8]  # the last two are the two references


# ---- speed and memory ----


def test_bf16_is_for_the_classifier_only(monkeypatch):
    seen = []

    def watched(loss, *arguments):
        seen.append(arguments[-1])
        return loss(*arguments)

    disturb(monkeypatch, watched)
    trained, result = run(mixed_precision="bf16", max_steps=2, held_out=None)
    assert seen == [torch.bfloat16] * 2 and {p.dtype for p in trained.values()} == {torch.float32}
    assert torch.isfinite(losses(result)).all()


def test_a_head_in_half_precision_is_refused():
    explainer = make()
    explainer.head.to(torch.bfloat16)
    with pytest.raises(ExplainerError, match=r"the head is in torch.bfloat16, .* load it in float32"):
        run(explainer=explainer)


def test_gradient_checkpointing(monkeypatch):
    plain, _ = run(explainer=make("vit"), max_steps=2, held_out=None)
    explainer, calls = make("vit"), []
    model = explainer.classifier.model
    enable = model.activation_checkpointing_enable
    monkeypatch.setattr(model, "activation_checkpointing_enable", lambda *a: (calls.append(1), enable(*a)))
    recomputed, _ = run(explainer=explainer, max_steps=2, held_out=None, gradient_checkpointing=True)
    assert calls and not model.is_activation_checkpointing
    for name, value in plain.items():
        torch.testing.assert_close(recomputed[name], value, atol=1e-5, rtol=1e-4)


def test_a_family_without_gradient_checkpointing():
    with pytest.raises(ExplainerError, match="ResNetForImageClassification has no gradient checkpointing"):
        run(gradient_checkpointing=True)


def test_torch_compile(whole):
    explainer, compiled = make(), []

    def backend(graph, inputs):
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    _, result = run(explainer=explainer, torch_compile=True, torch_compile_backend=backend, max_steps=2, held_out=None)
    assert compiled and explainer.classifier.model._compiled_call_impl is None
    torch.testing.assert_close(losses(result)[0], losses(whole[1])[0], atol=1e-4, rtol=0)
