"""Publishes explainers, good and bad ones, as their authors would; argv: file of the results, shared folder."""

import json
import os
import re
import sys
import tempfile

import torch
from checks import error_of, run
from families import build, processor
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download
from safetensors import safe_open
from transformers import pipeline

import hf_explain

Explainer, Ranking = hf_explain.ExplainerForImageClassification, hf_explain.RankingExplainerForImageClassification
SHARED, api, temporary = sys.argv[2], HfApi(), tempfile.TemporaryDirectory()
pixel_values = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def folder(name):
    return os.path.join(temporary.name, name)


def bytes_of(path):
    """{relative path: bytes} of a folder, without the card."""
    found = {}
    for where, _, files in os.walk(path):
        for file in files:
            with open(os.path.join(where, file), "rb") as opened:
                found[os.path.relpath(os.path.join(where, file), path)] = opened.read()
    found.pop("README.md", None)
    return found


def publish_edited(explainer, repo_id, include_classifier=False, **changes):
    """What somebody with a text editor could publish: config.json with other values."""
    path = folder(repo_id)
    explainer.save_pretrained(path, include_classifier=include_classifier)
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump({**config, **changes}, file)
    api.create_repo(repo_id)
    return api.upload_folder(repo_id=repo_id, folder_path=path).oid


def push_classifier(repo_id, seed=0, **kwargs):
    build("vit", seed=seed).push_to_hub(repo_id, **kwargs)
    processor(64).push_to_hub(repo_id)


push_classifier("tester/classifier")
build("vit", seed=0).save_pretrained(folder("classifier"))
processor(64).save_pretrained(folder("classifier"))
explainer = Ranking.from_classifier("tester/classifier", preset="tiny")
of_folder = Ranking.from_classifier(folder("classifier"), preset="tiny")


def save_expected():
    with torch.no_grad():
        maps = explainer(pixel_values).attributions
    torch.save({"pixel_values": pixel_values, "maps": maps}, os.path.join(SHARED, "expected.pt"))


save_expected()
explainer.push_to_hub("tester/explainer")


def check_reference_names_id_commit_and_fingerprint():
    config = explainer.config
    assert config.classifier_name_or_path == "tester/classifier"
    assert re.fullmatch("[0-9a-f]{40}", config.classifier_revision)
    assert config.classifier_revision == api.model_info("tester/classifier").sha
    assert config.classifier_fingerprint.keys() == {"float32", "float16", "bfloat16"}


def check_head_only_is_pushed_with_its_code():
    files = set(api.list_repo_files("tester/explainer"))
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= files
    assert {"modeling_ranking.py", "modeling_explainer.py", "configuration_explainer.py", "frozen_models.py"} <= files
    assert not [f for f in files if f.startswith("classifier/") or f == "pipeline_image_attribution.py"]
    with safe_open(hf_hub_download("tester/explainer", "model.safetensors"), "pt") as file:
        assert {key.split(".")[0] for key in file.keys()} == {"head"}  # noqa: SIM118
    with open(hf_hub_download("tester/explainer", "config.json")) as file:
        config = json.load(file)
    assert config["auto_map"] == {
        "AutoConfig": "configuration_explainer.RankingExplainerConfig",
        "AutoModel": "modeling_ranking.RankingExplainerForImageClassification",
    }
    assert "custom_pipelines" not in config and temporary.name not in json.dumps(config)


def check_card_tells_what_it_explains():
    card = ModelCard.load("tester/explainer")
    assert (card.data.base_model, card.data.base_model_relation) == ("tester/classifier", "adapter")
    assert {"image-attribution", "hf-explain", "hf_explainer_ranking"} <= set(card.data.tags)
    assert card.data.library_name == "transformers" and "automatically generated" not in card.text
    assert 'model="tester/explainer"' in card.text and explainer.config.classifier_revision in card.text


def check_second_push_keeps_an_edited_card():
    edited = "---\nlicense: mit\ntags:\n- mine\n- hf-explain\n---\n\n# Edited\n\nautomatically generated? No.\n"
    api.upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="tester/explainer")
    explainer.push_to_hub("tester/explainer", tags=["new"])
    card = ModelCard.load("tester/explainer")
    assert card.data.license == "mit" and {"mine", "hf-explain", "image-attribution", "new"} <= set(card.data.tags)
    assert card.text.strip() == edited.split("---\n")[2].strip()
    before = card.content
    explainer.push_to_hub("tester/explainer", tags=["new"])
    assert ModelCard.load("tester/explainer").content == before


def check_push_to_a_branch_leaves_main_alone():
    sha = api.model_info("tester/explainer").sha
    moved = Ranking.from_classifier("tester/classifier", preset="tiny", seed=1)
    assert moved.push_to_hub("tester/explainer", revision="seed-1", commit_message="Another seed").startswith("http")
    assert api.model_info("tester/explainer").sha == sha
    assert api.model_info("tester/explainer", revision="seed-1").sha != sha
    path = hf_hub_download("tester/explainer", "README.md", revision="seed-1")
    card = ModelCard.load(path)
    assert "# Edited" in card.text
    edited = card.content + "\nOf this branch.\n"
    api.upload_file(
        path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id="tester/explainer", revision="seed-1"
    )
    moved.push_to_hub("tester/explainer", revision="seed-1")
    card = ModelCard.load(hf_hub_download("tester/explainer", "README.md", revision="seed-1"))
    assert "Of this branch." in card.text


def check_remote_code_on_a_branch_of_its_own():
    pipe = pipeline("image-attribution", model=explainer)
    pipe.push_to_hub("tester/explainer", remote_code=True, revision="remote-code")
    files = set(api.list_repo_files("tester/explainer", revision="remote-code"))
    assert {"pipeline_image_attribution.py", "pictures.py", "modeling_ranking.py", "model.safetensors"} <= files
    with open(hf_hub_download("tester/explainer", "config.json", revision="remote-code")) as file:
        assert json.load(file)["custom_pipelines"].keys() == {"image-attribution"}
    assert "pipeline_image_attribution.py" not in api.list_repo_files("tester/explainer")


def check_other_kinds():
    """A hybrid reads one file more; LTX has its trunk in its own file; Vision DiffMask its gates."""
    kinds = {
        "hybrid": (Ranking, {"preset": "tiny", "hybrid": True}, "slopes.py"),
        "ltx": (hf_explain.LtxExplainerForImageClassification, {}, "modeling_ltx.py"),
        "diffmask": (hf_explain.DiffMaskExplainerForImageClassification, {"gate_start": 1.0}, "gates.py"),
    }
    for name, (kind, options, file) in kinds.items():
        made = kind.from_classifier("tester/classifier", **options)
        with torch.no_grad():
            torch.save(made(pixel_values).attributions, os.path.join(SHARED, f"{name}.pt"))
        made.push_to_hub(f"tester/{name}")
        pipe = pipeline("image-attribution", model=made)
        pipe.push_to_hub(f"tester/{name}", remote_code=True, revision="remote-code")
        for revision in ("main", "remote-code"):
            assert file in api.list_repo_files(f"tester/{name}", revision=revision)


def check_explainer_of_a_folder_is_refused_with_the_remedy():
    message = error_of("ExplainerError", of_folder.push_to_hub, "tester/refused")
    assert folder("classifier") in message and "include_classifier=True" in message
    assert not api.repo_exists("tester/refused")


def check_classifier_inside_the_repository():
    of_folder.push_to_hub("tester/whole", include_classifier=True)
    files = set(api.list_repo_files("tester/whole"))
    assert {"classifier/config.json", "classifier/model.safetensors", "model.safetensors"} <= files
    with open(hf_hub_download("tester/whole", "config.json")) as file:
        config = json.load(file)
    assert config["classifier_included"] and temporary.name not in json.dumps(config)
    card = ModelCard.load("tester/whole")
    assert "base_model" not in card.content and temporary.name not in card.content and "`classifier/`" in card.text
    assert not of_folder.config.classifier_included  # pushing changes nothing here
    assert of_folder.config.classifier_name_or_path == folder("classifier")
    other = Ranking.from_classifier(build("vit", seed=1), processor(64), preset="tiny")
    other.push_to_hub("tester/whole", revision="other")  # a classifier without a name is always included


def check_a_second_backbone():
    build("convnext").push_to_hub("tester/backbone")
    processor(64, image_mean=[0.2] * 3).push_to_hub("tester/backbone")
    two = Ranking.from_classifier("tester/classifier", backbone="tester/backbone", preset="tiny")
    assert two.config.backbone_revision == api.model_info("tester/backbone").sha
    with torch.no_grad():
        torch.save(two(pixel_values).attributions, os.path.join(SHARED, "backbone.pt"))
    two.push_to_hub("tester/two")
    two.push_to_hub("tester/two-whole", include_classifier=True)


def check_save_pretrained_pushes():
    explainer.save_pretrained(folder("saved"), push_to_hub=True, repo_id="tester/saved", private=True)
    path = snapshot_download("tester/saved")
    assert bytes_of(path) == bytes_of(folder("saved"))
    assert api.model_info("tester/saved").private
    assert ModelCard.load("tester/saved").data.base_model == "tester/classifier"
    of_folder.save_pretrained(folder("named"), push_to_hub=True, include_classifier=True)
    assert "classifier/model.safetensors" in api.list_repo_files("tester/named")


def check_saving_again_gives_the_same_files():
    for repo_id in ("tester/explainer", "tester/whole", "tester/two-whole"):
        first = snapshot_download(repo_id)
        Explainer.from_pretrained(repo_id).save_pretrained(folder("again"))
        assert bytes_of(folder("again")) == bytes_of(first), repo_id
        Explainer.from_pretrained(folder("again")).save_pretrained(folder("and again"))
        assert bytes_of(folder("and again")) == bytes_of(first), repo_id
        for name in ("again", "and again"):
            os.rename(folder(name), folder(f"{name} {repo_id.split('/')[1]}"))


def check_private_ones():
    push_classifier("tester/private-classifier", private=True)
    hidden = Ranking.from_classifier("tester/private-classifier", preset="tiny")
    hidden.push_to_hub("tester/of-private")
    hidden.push_to_hub("tester/private", private=True)
    push_classifier("tester/gated-classifier")
    api.update_repo_settings("tester/gated-classifier", gated="auto")
    Ranking.from_classifier("tester/gated-classifier", preset="tiny").push_to_hub("tester/of-gated")


def check_bad_ones():
    publish_edited(of_folder, "tester/absolute")
    publish_edited(explainer, "tester/parent", classifier_name_or_path="../classifier", classifier_revision=None)
    publish_edited(explainer, "tester/newer", format_version=99)
    publish_edited(explainer, "tester/nameless", classifier_name_or_path=None)
    vanished = "0123456789" * 4
    publish_edited(explainer, "tester/pinned-elsewhere", classifier_revision=vanished)
    two = Ranking.from_classifier("tester/classifier", backbone="tester/backbone", preset="tiny")
    publish_edited(two, "tester/absolute-backbone", backbone_name_or_path="/home/somebody/backbone")

    # a classifier that moved: one explainer names its branch, the next no revision, the last a commit that vanishes
    push_classifier("tester/moving")
    of_moving = Ranking.from_classifier("tester/moving", preset="tiny")
    publish_edited(of_moving, "tester/of-main", classifier_revision="main")
    publish_edited(of_moving, "tester/of-none", classifier_revision=None)
    of_moving.push_to_hub("tester/of-commit")
    build("vit", seed=1).push_to_hub("tester/moving")
    Explainer.from_pretrained("tester/of-commit")  # a pinned commit still stands
    api.super_squash_history("tester/moving")

    # a pickle instead of safetensors, which must not be read: this one could not be
    path = folder("tester/of-none")
    os.rename(os.path.join(path, "model.safetensors"), os.path.join(path, "pytorch_model.bin"))
    api.create_repo("tester/pickle")
    api.upload_folder(repo_id="tester/pickle", folder_path=path)
    os.remove(os.path.join(path, "pytorch_model.bin"))
    api.create_repo("tester/weightless")
    api.upload_folder(repo_id="tester/weightless", folder_path=path)

    with open(os.path.join(path, "model.safetensors"), "w") as file:  # what git leaves without LFS
        file.write("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    api.create_repo("tester/damaged")
    api.upload_folder(repo_id="tester/damaged", folder_path=path)
    publish_edited(explainer, "tester/other-head", pixel_size=8)

    # a classifier with code of its own, once beside a known architecture and once needed to load it
    code = "import os\nopen(os.environ['EXECUTED'], 'w').close()\nfrom transformers import ViTConfig as Config\n"
    code += "from transformers import ViTForImageClassification as Model\n"
    for repo_id, model_type in (("tester/with-code", "vit"), ("tester/needs-code", "unheard-of")):
        push_classifier(repo_id)
        of_code = Ranking.from_classifier(repo_id, preset="tiny")
        with open(hf_hub_download(repo_id, "config.json")) as file:
            config = json.load(file)
        config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Model"}
        config["model_type"] = model_type
        edited = json.dumps(config).encode()
        api.upload_file(path_or_fileobj=edited, path_in_repo="config.json", repo_id=repo_id)
        api.upload_file(path_or_fileobj=code.encode(), path_in_repo="code.py", repo_id=repo_id)
        publish_edited(of_code, f"tester/of-{repo_id.split('/')[1]}", classifier_revision="main")


def check_a_classifier_saved_in_low_precision():
    half = Explainer.from_pretrained("tester/explainer", dtype=torch.bfloat16)
    half.push_to_hub("tester/half", include_classifier=True)
    half.push_to_hub("tester/half-head")


run(globals())
