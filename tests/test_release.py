"""The four packages are released together: one version, and what each of them must bring along."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bc2-data", "bc2-ckpt", "bc2-model", "bc2-train")

packages = pytest.mark.parametrize("package", PACKAGES)


def project(package: str) -> dict[str, Any]:
    path = ROOT / "packages" / package / "pyproject.toml"
    return tomllib.loads(path.read_text())["project"]


def test_versions_are_in_lockstep() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    versions = {package: project(package)["version"] for package in PACKAGES}
    modules = {name: import_module(name.replace("-", "_")).__version__ for name in PACKAGES}
    assert versions == modules == dict.fromkeys(PACKAGES, newest[1])


@packages
def test_packages_take_each_other_from_the_same_release(package: str) -> None:
    major, minor, _ = project(package)["version"].split(".")
    extras = project(package).get("optional-dependencies", {})
    everything = [
        *project(package)["dependencies"],
        *(x for extra in extras.values() for x in extra),
    ]
    for requirement in everything:
        if requirement.startswith("bc2-"):
            assert requirement.endswith(f">={major}.{minor},<{major}.{int(minor) + 1}"), requirement


@packages
def test_every_extra_is_in_the_packages_readme(package: str) -> None:
    text = (ROOT / "packages" / package / "README.md").read_text()
    told = {
        name for names in re.findall(rf"{package}\[([\w,-]+)\]", text) for name in names.split(",")
    }
    assert told == set(project(package).get("optional-dependencies", {}))


@packages
def test_types_and_licence_come_along(package: str) -> None:
    folder = ROOT / "packages" / package
    assert (folder / "src" / package.replace("-", "_") / "py.typed").is_file()
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@packages
def test_no_python_is_named_that_is_not_tested(package: str) -> None:
    named = [line for line in project(package)["classifiers"] if "Python :: 3." in line]
    assert named == ["Programming Language :: Python :: 3.11"]
