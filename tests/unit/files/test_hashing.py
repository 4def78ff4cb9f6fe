"""Hashes that manifests, labels and reviews store: their values never change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from offapi.files.hashing import hash64, sha256_file, sha256_files, sha256_named, sha256_path

FIRST = "b640e840b19d378660b32fb51ae18d67dccb4a8596a29e7bd72c1b2ae5928f41"
FOLDER = "0b8856bd59b832a9dfeba6e40b87dc9a9059be857ace74748288a9b5bf7053b7"
FIRST_NAMED = "dfc8ebd5d47455a621e338a5533cb8028363bc7b9700332527a5f649f7d1e606"
FOLDER_NAMED = "31715a61f9a8433aeb7de99d2891a347a1b1cbbe9504f4fd1cd2c1a5991a9b75"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("first\n")
    (path / "sub" / "b.txt").write_text("second\n")
    return path


def test_files_and_folders_keep_their_hashes(folder: Path) -> None:
    assert sha256_file(folder / "a.txt") == sha256_path(folder / "a.txt") == FIRST
    assert sha256_path(folder) == FOLDER
    assert sha256_named(folder / "a.txt") == FIRST_NAMED
    assert sha256_named(folder) == FOLDER_NAMED


def test_a_folder_hashes_as_what_sha256sum_prints(folder: Path) -> None:
    names = ["a.txt", "sub/b.txt"]
    listing = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    (folder / "listing").write_bytes(listing.stdout)
    assert sha256_file(folder / "listing") == FOLDER
    assert sha256_files(folder, [folder / name for name in reversed(names)]) == FOLDER


def test_only_a_named_hash_changes_with_the_name(folder: Path) -> None:
    other = folder.rename(folder.with_name("other"))
    assert sha256_path(other) == FOLDER
    assert sha256_named(other) != FOLDER_NAMED


def test_a_text_keeps_its_64_bits() -> None:
    assert hash64("Zürich") == hash64("Zürich".encode()) == 636548684707296368
    assert hash64("\ud800") == 7497787021708494914
    assert hash64("") == 13020603013274838756
