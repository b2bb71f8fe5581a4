"""Links of the project's files, as they are on the site."""

from __future__ import annotations

import pytest

from tests.scripts import load_script


@pytest.fixture(scope="module")
def pages(root):
    return load_script(root / "docs" / "_ext" / "project_pages.py")


@pytest.fixture
def adapt(pages, tmp_path):
    for name in ("docs/train.md", "projects/nanodet_plus/README.md", "projects/nanodet_plus/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def adapt(text: str) -> str:
        source = "projects/nanodet_plus/README.md"
        page = pages.PAGES[source]
        return pages.adapt_links(text, root=tmp_path, source=source, page=page).rstrip("\n")

    return adapt


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[a](https://b.c/d.md)", "[a](https://b.c/d.md)"),
        ("[a](#b)", "[a](#b)"),
        ("[a](README.md#b)", "[a](measured.md#b)"),
        ("[a](../../docs/train.md#b)", "[a](../train.md#b)"),
        ("see [`a.py`](a.py)", "see `a.py`"),
        ("see [this](a.py)", "see this (`projects/nanodet_plus/a.py`)"),
        ("![a](a.py)", "![a](../../projects/nanodet_plus/a.py)"),
        ("```\n[a](absent.md)\n```", "```\n[a](absent.md)\n```"),
    ],
)
def test_links(adapt, text, expected):
    assert adapt(text) == expected


def test_a_link_to_nothing_is_an_error(adapt):
    with pytest.raises(ValueError, match="README.md: a link to absent.md, which is not there"):
        adapt("[a](absent.md)")


def test_every_link_between_files_of_the_project_is_good(pages, root):
    pages.pages(root)
    for page in sorted((root / "docs").glob("*.md")):
        source = f"docs/{page.name}"
        pages.adapt_links(page.read_text(), root=root, source=source, page=page.stem)
    for source in ("README.md", "CONTRIBUTING.md"):
        pages.adapt_links((root / source).read_text(), root=root, source=source, page="index")
