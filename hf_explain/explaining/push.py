"""Pushing a data set of maps."""

from __future__ import annotations

from transformers.utils.hub import hf_api

# ---- a data set of maps ----


def check_dataset_push(repo_id: str, private: bool) -> None:
    """Makes the repository, which needs a token that may."""
    hf_api().create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True)


def push_dataset(folder, repo_id: str) -> str:
    """Pushes card and rows in the place of what the repository holds of them; returns the commit's address."""
    rows = "data/train-*.parquet"
    return hf_api().upload_folder(
        repo_id=repo_id, repo_type="dataset", folder_path=folder, allow_patterns=["README.md", rows],
        delete_patterns=[rows], commit_message="Upload attribution maps",
    )  # fmt: skip
