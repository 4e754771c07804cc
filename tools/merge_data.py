"""Store the merges that the merge stepper holds: `python tools/merge_data.py`.

Needs QWEN2_BOOK_CHECKPOINT, of whose tokenizer (Apache 2.0) they are taken: all but the rare merges
of program text. Written to `qwen2_book/widgets/merge_stepper.json`.
"""

import json
import sys
from pathlib import Path

from real_model import source

from qwen2_book import Tokenizer
from qwen2_book.widgets import merge_table

LIMIT = 600_000  # bytes in the page


def main() -> None:
    tokenizer = Tokenizer.from_file(source(), backend="python")
    kept, table = merge_table.pack(tokenizer.merges)
    data = {
        "source": Path(source()).name,
        "merges": len(tokenizer.merges),
        "kept": kept,
        "always": merge_table.ALWAYS,
        "table": table,
    }
    text = json.dumps(data, indent=1) + "\n"
    if len(text) > LIMIT:
        sys.exit(f"{len(text):,} bytes, at most {LIMIT:,}")
    merge_table.STORED.write_text(text, encoding="utf-8")
    print(f"{merge_table.STORED}: {len(text):,} bytes, {kept:,} of {len(tokenizer.merges):,}")


if __name__ == "__main__":
    main()
