"""What the site needs beside mkdocs: links that leave docs/, and state machines drawn when it is built.

In a checkout a page of docs/ links to ``../etc/policy.yaml`` or ``../docker/README.md``. The pages of EXTRA become
pages of the site, other files are copied below files/, and the links are turned to there. A link whose text is the
file name of a page says the page's title instead.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
EXTRA = ("docker/README.md", "bench/README.md", "bench/RESULTS.md", "etc/mosquitto/README.md")
LINK = re.compile(r"(?:\[(?P<file>[\w.-]+\.md)\])?(?<=\])\((?!https?:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of EXTRA, and every file that a page links to outside docs/."""
    for name in EXTRA:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for page in list(files.documentation_pages()):
        for found in LINK.finditer(page.content_string):
            target = _target(page.src_uri, found["target"])
            if (ROOT / target).is_file() and _uri(target) not in files.src_uris:
                files.append(File.generated(config, _uri(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links to where their targets are in the site, and draw what is drawn in mermaid."""
    here = page.file.src_uri

    def turned(found: re.Match[str]) -> str:
        target = _target(here, found["target"])
        uri = posixpath.relpath(_uri(target), posixpath.dirname(here) or ".")
        text = f"[{_title(ROOT / target, found['file'])}]" if found["file"] else ""
        return f"{text}({uri}{found['anchor'] or ''})"

    markdown = LINK.sub(turned, markdown)
    # In the cells of a table GitHub wants "\|" for a bar in code; Python-Markdown shows the backslash.
    markdown = re.sub(r"(?<=`)[^`\n]*\\\|[^`\n]*(?=`)", lambda found: found[0].replace("\\|", "|"), markdown)
    return re.sub(r"```mermaid\nstateDiagram-v2\n(.*?)```", lambda found: _drawn(found[1]), markdown, flags=re.DOTALL)


def _target(page: str, link: str) -> str:
    """The file that a link means, from the root of the checkout."""
    folder = posixpath.dirname(page if page in EXTRA else f"docs/{page}")
    return posixpath.normpath(posixpath.join(folder, link))


def _title(file: Path, name: str) -> str:
    """What a link says whose text is a file's name: the page's title."""
    heading = re.search(r"^# (.+)$", file.read_text(), re.MULTILINE) if file.is_file() else None
    return heading[1] if heading else name


def _uri(target: str) -> str:
    """Where a file of the checkout is in the site."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return target if target in EXTRA else f"files/{target}"


def _drawn(text: str) -> str:
    """A state diagram as SVG, in the colours of the page."""
    arrows = re.findall(r"^\s*(\S+) --> (\S+?)(?:: (\S+))?$", text, re.MULTILINE)
    lines = ['"[*]" [label="", shape=circle, width=0.15, style=filled, class=begin]']
    for before, after, _ in arrows:
        lines += [f'"{state}" [class={state}]' for state in (before, after) if state != "[*]"]
    both: dict[tuple[str, str], list[str]] = {}
    for before, after, name in arrows:
        both.setdefault((before, after), []).append(name)
    for (before, after), names in both.items():
        label = "\\n".join(name for name in names if name)
        lines.append(f'"{before}" -> "{after}" [label="{label}"]')
    graph = (
        "digraph {bgcolor=transparent; rankdir=TB; nodesep=0.7; ranksep=0.6; fontname=sans;"
        'node [shape=box, style=rounded, fontname=sans, fontsize=13, margin="0.2,0.1"];'
        f"edge [fontname=sans, fontsize=10, arrowsize=0.7]; {'; '.join(lines)}}}"
    )
    drawn = subprocess.run(["dot", "-Tsvg"], input=graph, capture_output=True, text=True, check=True).stdout
    svg = drawn[drawn.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<title>.*?</title>|\n", "", svg, flags=re.DOTALL)
    return f'<div class="states" markdown="0">{svg}</div>'
