"""The page of config keys: every key is there and described."""

from __future__ import annotations

import pytest
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from tests.scripts import load_script

SOURCE = '''
"""A config."""

run = dict(
    # Where
    # it goes.
    folder="out",
    steps=3,  # how many
    part=L(Part)(size=2),
    bare=None,
    near=dict(one=1),  # of the section
)
'''
PACKAGE = '''
class Base:
    """A base.

    Args:
        size: as of nothing.
        kind, colour: of both,
            on two lines.
    """

    def __init__(self, size, *, kind="round", colour=None):
        pass


class Part(Base):
    """A part.

    Args:
        size: in pixels.
    """
'''


@pytest.fixture(scope="module")
def reference(root):
    return load_script(root / "docs" / "_ext" / "config_reference.py")


@pytest.fixture
def keys(reference, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "parts.py").write_text(PACKAGE)
    (tmp_path / "config.py").write_text(SOURCE)
    targets = reference.package_targets(tmp_path / "package")
    return {x.name: x for x in reference.config_keys(tmp_path / "config.py", targets=targets)}


def test_descriptions_are_comments_or_of_docstrings(keys):
    assert {name: (x.value, x.description) for name, x in keys.items()} == {
        "run.folder": ("'out'", "Where it goes."),
        "run.steps": ("3", "how many"),
        "run.part": ("Part", "A part."),
        "run.part.size": ("2", "in pixels."),
        "run.part.kind": ("'round'", "of both, on two lines."),
        "run.part.colour": ("None", "of both, on two lines."),
        "run.bare": ("None", ""),
        "run.near": ("", "of the section"),
        "run.near.one": ("1", ""),
    }
    assert {name for name, x in keys.items() if x.is_section} == {"run.part", "run.near"}


def test_every_key_is_described(reference, root):
    targets = reference.package_targets(root / "nanodet_d2")
    lacking = [
        f"{file}: {key.name}"
        for file in reference.CONFIGS
        for key in reference.config_keys(root / "configs" / "common" / file, targets=targets)
        if not key.description and not key.is_section
    ]
    assert not lacking, "a comment beside the key, or Args of its target, has to describe it"


def test_every_common_config_is_on_the_page(reference, root):
    folder = root / "configs" / "common"
    assert {str(x.relative_to(folder)) for x in folder.rglob("*.py")} == set(reference.CONFIGS)


def test_no_key_of_a_loaded_config_is_missing(reference, root):
    """The page is made from the source alone; what detectron2 loads has no other keys."""
    targets = reference.package_targets(root / "nanodet_d2")
    for file in reference.CONFIGS:
        path = root / "configs" / "common" / file
        page = {x.name for x in reference.config_keys(path, targets=targets)}
        loaded = LazyConfig.load(str(path))
        names = {x for key in loaded for x in _names(loaded[key], key)}
        assert names <= page, names - page


def _names(node, name):
    """Dotted names of all keys below a node; what says which function to call is no key."""
    if isinstance(node, DictConfig):
        plain = OmegaConf.to_container(node, resolve=False)
        for key in plain:
            if key not in ("_target_", "constructor"):
                yield f"{name}.{key}"
                yield from _names(node._get_node(key), f"{name}.{key}")
    elif OmegaConf.is_list(node):
        for i in range(len(node)):
            yield from _names(node._get_node(i), f"{name}[{i}]")
