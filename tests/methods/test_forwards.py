"""What a method costs as it is, whatever the size of the pictures; and that it says so where it takes long."""

import io
import sys

import pytest
import torch
from families import build, processor
from method_cases import is_defined
from transformers.utils import logging

from hf_explain import METHODS, Classifier
from hf_explain.jobs import progress as module
from hf_explain.methods import forwards as counting
from hf_explain.methods.calling import attribute
from hf_explain.methods.forwards import forwards, together
from hf_explain.methods.naming import find_method
from hf_explain.methods.occlusion import read_window
from hf_explain.methods.superpixels import superpixels
from hf_explain.modeling.model_call import counted
from hf_explain.modeling.pixel_space import PixelSpace

MOST = 300
FAMILIES = {
    "convnext": lambda size: {  # with ReLU, and more channels than Score-CAM takes
        "patch_size": size // 8,
        "num_stages": 2,
        "hidden_sizes": [4, 400],
        "depths": [1, 1],
        "hidden_act": "relu",
    },
    "vit": lambda size: {"image_size": size, "patch_size": size // 4, "num_hidden_layers": 2},
}
SIZES = (64, 224, 384)
RELU = "resnet"  # is what the ConvNeXt here is defined like
CASES = [
    (f, s, name) for f in FAMILIES for s in SIZES for name in METHODS if is_defined(name, f if f == "vit" else RELU)
]


@pytest.fixture(scope="module")
def classifier_of():
    made = {}

    def make(family, size):
        if (family, size) not in made:
            made[family, size] = Classifier(build(family, **FAMILIES[family](size)), processor(size)).freeze()
        return made[family, size]

    return make


@pytest.fixture
def counters(monkeypatch):
    """What the bars were told: (forwards made, of how many)."""
    made = []

    class Kept(module.Later):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(counting, "Later", Kept)
    return made


@pytest.mark.parametrize("family, size, name", CASES)
def test_no_default_takes_many_forwards(family, size, name, classifier_of, counters):
    classifier = classifier_of(family, size)
    pictures = torch.rand(2 if size == 64 else 1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with counted(classifier.model) as seen:
        METHODS[name](classifier, pictures)
    assert sum(seen) <= MOST * len(pictures)
    for counter in counters:  # of the outermost method; the prediction, and looking for layers, are not its own
        assert 0 < counter.done == counter.total <= sum(seen)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (480, 640), (60, 90), (100, 1000), (10, 700), (5, 5)])
def test_windows_fit_the_picture(size):
    window, stride = read_window(None, None, *size)
    rows, columns = (-(-(length - window) // stride) + 1 for length in size)
    assert 1 <= stride <= window <= min(size) and rows * columns <= 256
    assert superpixels(torch.rand(3, *size)).max() < 256


def test_what_is_given_is_taken(classifier_of):
    assert read_window(8, 4, 224, 224) == (8, 4)
    assert read_window(64, None, 224, 224) == (64, 14) and read_window(8, None, 224, 224) == (8, 4)
    assert read_window(None, 60, 224, 224) == (60, 60) and read_window(1, None, 64, 64) == (1, 1)
    classifier, x = classifier_of("convnext", 64), torch.rand(1, 3, 64, 64)
    METHODS["grad_cam"](classifier, x, 1)  # which looks for the last map, once
    published = {"occlusion(window=16, stride=2)": 625, "rise(masks=400)": 400, "score_cam(channels=None)": 400}
    for text, least in {**published, "lime(samples=500)": 500, "kernel_shap(samples=500)": 500}.items():
        with counted(classifier.model) as seen:
            find_method(text)(classifier, x, 1)
        assert least <= sum(seen) <= least + 2, text


def test_score_cam_takes_the_channels_that_vary_most(classifier_of):
    """With all others left out of the sum."""
    from hf_explain.methods.cams import enlarge, last_layer, seen_through
    from hf_explain.methods.layers import LayerClassifier

    classifier, x = classifier_of("convnext", 64), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = LayerClassifier(classifier, last_layer(classifier, x), x).maps[0].float()
        chosen = sorted(range(400), key=lambda channel: -float(maps[channel].double().var(correction=0)))[:5]
        weights = seen_through(classifier, x[0], maps[chosen], 1, 32, lambda pictures: None)
        expected = enlarge((weights.view(-1, 1, 1) * maps[chosen]).sum(0).relu()[None], (64, 64))
    torch.testing.assert_close(METHODS["score_cam"](classifier, x, 1, channels=5), expected)


# ---- saying so ----


class Slow:
    """A classifier whose forwards take as long as one says, on a clock of its own."""

    num_labels, dtype, device, pixel_space = 2, torch.float32, torch.device("cpu"), None

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __call__(self, x):
        self.clock[0] += self.seconds * len(x)
        one = x.mean((1, 2, 3))
        return torch.stack([torch.zeros_like(one), one], 1)

    def scores(self, logits):
        return logits.softmax(-1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "asked_for_lines", True)
    return now


BLANK = torch.zeros(1, 3, 64, 64)
SLOW = {  # text -> forwards of a picture
    "occlusion": 170, "rise": 256, "smoothgrad": 25, "integrated_gradients(batch_size=8)": 32,
    "lime(regions=4)": 256, "kernel_shap(regions=4)": 256, "feature_ablation(regions=8)": 65,
}  # fmt: skip


def ask(text, classifier, count=1):
    options = {} if "rise" in text or "smoothgrad" in text else {"reference": BLANK}
    return find_method(text, options)(classifier, torch.rand(count, 3, 64, 64), 1)


@pytest.mark.parametrize("text", SLOW)
def test_one_slow_picture_says_how_far_it_is(text, clock, capsys):
    """A line with an estimate as soon as it is known, over forwards: one picture has one batch."""
    ask(text, Slow(clock, 1.0))
    said = capsys.readouterr().err.splitlines()
    name, total = text.partition("(")[0], SLOW[text]
    assert said[0].startswith(f"forwards of {name}: ") and f" of {total}, " in said[0] and said[0].endswith(" left")
    made, rest = int(said[0].split()[3]), said[0].split()[-2]
    minutes, seconds = map(int, rest.split(":"))
    assert made <= 65 and abs(60 * minutes + seconds - (total - made)) <= 1  # a second each


def test_variants_of_pullbacks_say_it_too(clock, capsys):
    """They need to know how colors are written, and count their passes."""
    slow = Slow(clock, 1.0)
    slow.pixel_space, slow.model = PixelSpace(), torch.nn.Identity()
    find_method("semantic_pullback(variant=smooth)", {})(slow, torch.rand(1, 3, 8, 8), 1)
    assert "forwards of semantic_pullback: " in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("text", SLOW)
def test_what_is_quick_says_nothing(text, clock, capsys):
    ask(text, Slow(clock, 9.0 / SLOW[text]))
    assert capsys.readouterr().err == ""


def test_a_slow_first_forward_alone_says_nothing(clock, capsys):
    classifier = Slow(clock, 0.01)
    with forwards("adding", 100) as done:
        clock[0] += 2.0  # a device that warms up
        for _ in range(100):
            classifier(BLANK)
            done(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        ask("occlusion", Slow(clock, 1.0))
    finally:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    said = sys.stderr.getvalue()
    assert "forwards of occlusion" in said and "/170 [" in said and "<" in said and said.endswith("\r")  # and is gone


def test_switches_are_obeyed(clock, monkeypatch, capsys):
    monkeypatch.setattr(module, "asked_for_lines", False)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        ask("occlusion", Slow(clock, 1.0))
    finally:
        if shown:
            logging.enable_progress_bar()
    assert capsys.readouterr().err == ""


def test_calls_that_belong_together_have_one_bar(clock, counters, capsys):
    classifier, x = Slow(clock, 1.0), torch.rand(5, 3, 64, 64)
    attribute(METHODS["rise"], classifier, x, torch.ones(5, dtype=torch.long), batch_size=2, options={"masks": 8})
    assert [(one.done, one.total) for one in counters] == [(40, 40)]
    with together(2):
        for _ in range(2):
            with forwards("outer", 6) as done:
                ask("rise(masks=3)", classifier)  # inside another, which counts
                done(6)
    assert (counters[-1].done, counters[-1].total, len(counters)) == (12, 12, 2)
    assert counters[0].desc in capsys.readouterr().err


def test_a_bar_is_gone_after_an_error(clock, counters):
    class Broken(Slow):
        def __call__(self, x):
            if self.clock[0] > 100:
                raise IndexError("in the middle")
            return super().__call__(x)

    with pytest.raises(IndexError, match="in the middle"):
        ask("occlusion", Broken(clock, 1.0))
    assert counters[0].bar is not None and counting.AROUND.get() is None
