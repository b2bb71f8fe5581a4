"""Every block of code in the READMEs and on the site's pages runs, or says why it does not.

A block's language says what it is: none or ``sh`` are commands, ``python`` and ``json`` themselves,
and ``text`` is what a command prints. Commands of ``make`` and of the project's scripts take too
long to run, or a network: they are marked, and it is checked that targets, scripts and options are
there.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from nanodet_d2 import cli
from nanodet_d2.cli.parsing import build_parser, split_overrides
from nanodet_d2.cli.verb import load_verbs
from tests.cli.example_files import shortened
from tests.docs.blocks import Block, find_blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECTS = [*sorted(ROOT.glob("projects/*/*.md")), *ROOT.glob("projects/nanodet_plus/cpp/*.md")]


def _name(block: Block) -> str:
    return f"{block.page.relative_to(ROOT).with_suffix('')}-{block.line}"


BLOCKS = [block for page in PAGES for block in find_blocks(page) if block.language != "text"]
OF_PROJECTS = [
    block for page in PROJECTS for block in find_blocks(page) if block.language != "text"
]
KNOWN = [pytest.param(x, id=_name(x)) for x in [*BLOCKS, *OF_PROJECTS]]
RUN = [pytest.param(x, id=_name(x)) for x in [*BLOCKS, *OF_PROJECTS] if x.reason is None]
LARGEST_SHARE_NOT_RUN = 0.1  # of the blocks that users follow; projects' repeat measurements
SCRIPT_STARTERS = ("python", "python3", "./python", "torchrun", "srun")
# What neither names a verb, a target nor a script of ours.
SHELL = ("#!/bin/bash", "cd", "curl", "export", "pip", "serve", "source")


def parse(arguments: list[str]) -> None:
    """Refuse what the command would refuse before it does anything."""
    verbs = load_verbs()
    _, parsers = build_parser(verbs)
    verb = verbs.get(arguments[0])
    assert verb is not None, f"{arguments[0]}: no such verb"
    rest, _ = split_overrides(parsers[arguments[0]], arguments[1:], allowed=verb.TAKES_OVERRIDES)
    parsers[arguments[0]].parse_args(rest)


def check(block: Block) -> None:
    """What takes no time: Python compiles, verbs, targets, scripts and their options exist."""
    if block.language == "python":
        compile(block.text, str(block.page), "exec")
        return
    if block.language == "json":
        json.loads(block.text)
        return
    assert block.language in ("", "sh"), f"a block of {block.language!r}: nothing runs these"
    for words in block.commands():
        while words and re.match(r"[A-Za-z_]\w*=", words[0]):  # a variable, or one by a command
            words = [] if "$(" in words[0] else words[1:]
        program, *arguments = words or ["export"]
        program = program.replace(".venv/bin/", "")
        if program == "nanodet-d2" and "…" not in " ".join(arguments):
            parse(arguments)
            continue
        if program != "nanodet-d2":
            assert block.reason, f"{program}: mark the block <!-- not run: why -->"
        if program == "make":
            check_targets(arguments)
        elif program in SCRIPT_STARTERS:
            check_script(arguments, block.page.parent)
        else:
            assert program in (*SHELL, "nanodet-d2") or program.startswith("output/"), program


def check_targets(arguments: list[str]) -> None:
    """Targets are in the Makefile; variables are among those that it reads."""
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        pattern = rf"\$\({name}\)|\({name}\b" if is_variable else rf"^{name}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"make {word}"


def check_script(arguments: list[str], folder: Path) -> None:
    """The script is there, and its source names its options; those before it are the starter's."""
    scripts = [i for i, word in enumerate(arguments) if word.endswith(".py")]
    if not scripts or arguments[scripts[0]].startswith("detectron2/"):
        return
    path = arguments[scripts[0]]
    if path.startswith("output/"):
        return  # what an earlier command wrote
    places = (ROOT, folder, folder / "benchmarks", folder / "offline")
    found = [x / path for x in places if (x / path).exists()]
    assert found, f"{path}: no such script"
    if "default_argument_parser(epilog" in found[0].read_text():
        return  # whose options are detectron2's
    source = "\n".join(x.read_text() for x in found[0].parent.glob("*.py"))  # they share options
    for word in arguments[scripts[0] + 1 :]:
        if word.startswith("--"):
            assert f'"{word}"' in source, f"{path} has no {word}"


def run(block: Block, folder: Path) -> None:
    """Run a block in ``folder``, the current one; a config becomes a file of the shipped ones'."""
    if block.language == "python":
        if block.text.startswith("from ."):
            run_config(block.text, folder)
        else:
            exec(compile(block.text, str(block.page), "exec"), {})
        return
    if block.language == "json":
        return
    for _, *arguments in block.commands():
        json_wanted = [] if "--json" in arguments else ["--json"]
        code = cli.main([*shortened(arguments), *json_wanted])
        # 1 is a finding of the doctor's, of which the drawn set has some.
        assert code == 0 or (arguments[0] == "doctor" and code == 1), arguments


def run_config(text: str, folder: Path) -> None:
    """A derived config is loaded beside those it is derived from, and its model is built."""
    from detectron2.config import LazyConfig, instantiate

    configs = folder / "configs"
    if not configs.exists():
        shutil.copytree(ROOT / "projects" / "nanodet_plus" / "configs", configs)
    (configs / "of_a_page.py").write_text(text.replace("pretrained=True", "pretrained=False"))
    config = LazyConfig.load(str(configs / "of_a_page.py"))
    config.data.classes = ["cat", "dog"]
    assert instantiate(config.model) is not None


@pytest.mark.parametrize("block", KNOWN)
def test_block_is_what_the_project_knows(block):
    check(block)


def test_few_blocks_are_not_run():
    not_run = [f"{x.page.name}, line {x.line}: {x.reason}" for x in BLOCKS if x.reason]
    assert len(not_run) <= LARGEST_SHARE_NOT_RUN * len(BLOCKS), "\n".join(not_run)


@pytest.mark.parametrize(
    "text",
    [
        "```\nnanodet-d2 pretict model.onnx street.jpg\n```",
        "```\nnanodet-d2 predict model.onnx street.jpg --treshold 0.5\n```",
        "```\nrm -r output\n```",
        "```python\nfrom nanodet_d2 import (\n```",
        "```yaml\na: 1\n```",
        "```json\n{a: 1}\n```",
        "<!-- not run: why -->\n```\nmake dmeo\n```",
        "<!-- not run: why -->\n```\nmake demo MINUTES=3\n```",
        "<!-- not run: why -->\n```\npython projects/nanodet_plus/demmo.py\n```",
        "<!-- not run: why -->\n```\npython projects/nanodet_plus/demo.py --minute 3\n```",
    ],
)
def test_broken_block_fails(text, tmp_path):
    (block,) = _blocks(text, tmp_path)
    with pytest.raises((AssertionError, SyntaxError, SystemExit, ValueError)):
        check(block)


@pytest.mark.parametrize("text", ["```\nls", "<!-- not run: why -->\ntext\n"])
def test_broken_page_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match="block"):
        _blocks(text, tmp_path)


def test_blocks_are_found(tmp_path):
    text = "a\n```\nls \\\n  -l  # all\n```\n"
    text += "<!-- not run: no -->\n\n```sh\npwd\n```\n```{toctree}\n```"
    first, second = _blocks(text, tmp_path)
    assert (first.line, first.language, first.reason) == (2, "", None)
    assert first.commands() == [["ls", "-l"]]
    assert (second.line, second.language, second.reason) == (8, "sh", "no")


def _blocks(text: str, folder: Path) -> list[Block]:
    page = folder / "page.md"
    page.write_text(text)
    return find_blocks(page)


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN)
def test_block_runs(block, reader, capsys):
    run(block, reader)


@pytest.mark.slow
def test_block_that_fails_when_it_runs(reader, tmp_path, capsys):
    (block,) = _blocks("```\nnanodet-d2 predict absent.onnx street.jpg\n```", tmp_path)
    check(block)
    with pytest.raises(AssertionError):
        run(block, reader)
