"""Make references.md from references.bib: `python tools/references.py [--check]`.

Every entry becomes a heading that is its key, so that `references.md#rope-su2021` leads there on
the website, on GitHub and in an editor alike. With --check the page is only compared.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIB, PAGE = ROOT / "references.bib", ROOT / "references.md"
SECTIONS = {
    "qwen": "Qwen: reports, announcements, model pages",
    "thread": "Threads: what developers asked and what was answered",
    "architecture": "The parts of the model",
    "position": "Positions, windows and long contexts",
    "moe": "Mixture of experts",
    "running": "Running it: kernels, sampling, files, libraries",
    "training": "Training, preferences, evaluation, scale",
}
HEAD = """# References

<!-- Made by tools/references.py from references.bib: edit that file. -->

What the book cites, by subject. The word above each entry is its key: it is the last part of the
links in the text, and the name of the entry in [references.bib](references.bib).
"""
ENTRY = re.compile(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^  (\w+) += \{(.*)\},$")


@dataclass(frozen=True)
class Entry:
    """One source: its key and its fields, as they stand in the file."""

    key: str
    fields: dict[str, str]

    @property
    def authors(self) -> str:
        """`A, B and C`, or `A, B and others`."""
        names = [name.strip("{} ") for name in self.fields["author"].split(" and ")]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

    @property
    def where(self) -> str:
        """Where it appeared: the conference, arXiv, or the site."""
        places = [self.fields[n] for n in ("booktitle", "howpublished") if n in self.fields]
        if "eprint" in self.fields:
            places.append(f"arXiv:{self.fields['eprint']}")
        return ", ".join(places)

    def markdown(self) -> str:
        """Heading, then authors, year, title, place and link in one paragraph."""
        names, year = plain(self.authors), self.fields["year"]
        title = plain(self.fields["title"])
        text = f"{names} ({year}). *{title}*{'' if title[-1] in '?!' else '.'} "
        text += f"[{plain(self.where)}]({self.fields['url']})."
        if "note" in self.fields:
            text += f" {plain(self.fields['note'])}."
        return f"### `{self.key}`\n\n{text}\n"


def plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([*_\[\]`])", r"\\\1", text)


def entries(text: str | None = None) -> dict[str, Entry]:
    """All entries by key; ValueError names a line that is not understood or a key used twice."""
    text = BIB.read_text(encoding="utf-8") if text is None else text
    found: dict[str, Entry] = {}
    for _, key, body in ENTRY.findall(text):
        fields: dict[str, str] = {}
        for line in body.splitlines():
            if not (match := FIELD.match(line)):
                raise ValueError(f"{key}: found {line!r}, expected `  name = {{value}},`")
            fields[match[1]] = match[2]
        if missing := {"title", "author", "year", "url", "keywords"} - set(fields):
            raise ValueError(f"{key}: missing {sorted(missing)}")
        if fields["keywords"] not in SECTIONS:
            raise ValueError(f"{key}: found section {fields['keywords']!r}, not in {[*SECTIONS]}")
        if key in found or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key):
            raise ValueError(f"{key}: used twice, or not of small letters, digits and hyphens")
        found[key] = Entry(key, fields)
    if len(found) != len(re.findall(r"^@", text, re.MULTILINE)):
        raise ValueError("an entry does not end with a line that is } alone")
    return found


def page(sources: dict[str, Entry]) -> str:
    """The whole of references.md; within a section by key."""
    parts = [HEAD]
    for section, title in SECTIONS.items():
        parts.append(f"## {title}\n")
        here = [e for e in sources.values() if e.fields["keywords"] == section]
        parts += [entry.markdown() for entry in sorted(here, key=lambda e: e.key)]
    return "\n".join(parts)


def main() -> None:
    text = page(entries())
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
            sys.exit("references.md is not what references.bib makes: run tools/references.py")
        return
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
