"""Build the website: `python tools/site_builder.py [folder]`, by default into `_build/html`.

The pages are checked first, then Jupyter Book builds them with warnings as errors, Pagefind indexes
them, and the result is checked for outside requests and for weight.
"""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import checks

ROOT = checks.ROOT
LIMIT = 1_000_000  # bytes of a page with its pictures, gzipped
LOADED = re.compile(
    r"<script[^>]+src=[\"'](https?:)?//|<link[^>]+rel=[\"'](?:stylesheet|preconnect|preload|icon)"
    r"[\"'][^>]+href=[\"'](?:https?:)?//|<(?:img|iframe|source|video)[^>]+src=[\"'](?:https?:)?//"
)
STYLE_LOADS = re.compile(r"url\([\"']?(?:https?:)?//|@import [\"'](?:https?:)?//")


def build(out: Path) -> None:
    """The site into `out`; a fault ends the program with what is wrong."""
    if found := checks.findings():
        sys.exit("\n".join(found))
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT)]
    command += ["-W", "-n", "--keep-going", "--path-output", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Jupyter Book stopped:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    pages = out / "_build" / "html"
    index(pages)
    if found := [*outside(pages), *heavy(pages)]:
        sys.exit("\n".join(found))


def index(pages: Path) -> None:
    """The search index, in one language, so that Chinese inside English pages is found."""
    command = [sys.executable, "-m", "pagefind", "--site", str(pages), "--force-language", "zh"]
    command += ["--root-selector", "article.bd-article"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Pagefind stopped:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def outside(pages: Path) -> list[str]:
    """Whatever a page or a style sheet would load from elsewhere."""
    found = []
    for file in [*pages.rglob("*.html"), *pages.rglob("*.css")]:
        pattern = LOADED if file.suffix == ".html" else STYLE_LOADS
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{file.relative_to(pages)}:{number}: loads {match[0]}")
    return found


def heavy(pages: Path) -> list[str]:
    """Pages that weigh too much with their own pictures."""
    found = []
    for file in pages.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        pictures = {
            p for p in re.findall(r"<img[^>]+src=\"([^\":]+)\"", text) if "_static" not in p
        }
        parts = [text.encode(), *((file.parent / p).read_bytes() for p in pictures)]
        size = sum(len(gzip.compress(part)) for part in parts)
        if size > LIMIT:
            found.append(f"{file.relative_to(pages)}:1: {size:,} bytes gzipped, at most {LIMIT:,}")
    return found


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    build(out.resolve())
    print(f"open {out / '_build' / 'html' / 'index.html'}")


if __name__ == "__main__":
    main()
