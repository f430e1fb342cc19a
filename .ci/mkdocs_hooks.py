"""MkDocs hooks: pages outside of docs/, and code fences with more than a language."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# What pages of docs/ link to; on the site it lies beside them.
BESIDE = (
    *("BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("benchmarks/*.py", "examples/*.*", "reports/**/*.*", "hpo/report/render/report.schema.json"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/ to those of the site."""
    for pattern in BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite links between docs/ and what lies beside it, and drop the second word of fences, for the tests."""
    if "/" not in page.file.src_uri:
        markdown = re.sub(r"\]\((?:\.\./|docs/)", "](", markdown)
    return re.sub(r"^```(\w+) \w+$", r"```\1", markdown, flags=re.MULTILINE)
