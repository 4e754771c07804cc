"""What a source names: a folder, a .gguf file or a hub id; which file of a folder is taken."""

from pathlib import Path

from qwen2_book.checkpoint import hub, safetensors_file
from qwen2_book.errors import CheckpointError

TINY = Path(__file__).parent.parent / "assets" / "tiny"
BASE = TINY.with_name("base")  # the same model before fine-tuning
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

Source = str | Path | None


def locate(source: Source, wanted: list[str] = hub.FILES) -> Path:
    """The checkpoint folder or .gguf file that a source names; of a hub id, what is wanted."""
    if source is None:
        return TINY
    if not isinstance(source, str | Path) or not str(source):
        raise CheckpointError(f"source: found {source!r:.60}, expected a path, a hub id or None.")
    try:
        path = Path(source).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
        if is_folder:
            return _choose(path)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{str(source)!r:.120} is not a usable path ({error}).") from None
    if path.suffix in PICKLES and is_file:
        raise CheckpointError(_pickle(path))
    if is_file and path.suffix == ".gguf":
        return path
    if is_file:
        raise CheckpointError(f"{path}: expected a folder, a .gguf file or a hub id.")
    if hub.HUB_ID.fullmatch(str(source)):
        return hub.fetch(str(source), wanted)
    raise CheckpointError(
        f"{str(source)!r:.200} is neither a folder, nor a .gguf file, nor a hub id such as "
        "'Qwen/Qwen2-0.5B-Instruct'. Check the path."
    )


def _choose(folder: Path) -> Path:
    """What to load from a folder: its safetensors, else its one GGUF file; never a pickle."""
    if any(folder.glob("*.safetensors")) or (folder / safetensors_file.INDEX).is_file():
        return folder
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        names = [file.name for file in files]
        raise CheckpointError(f"{folder} holds {names}: pass the path of the one you want.")
    for file in sorted(folder.iterdir()):
        if file.suffix in PICKLES:
            raise CheckpointError(_pickle(file))
    raise CheckpointError(
        f"{folder} holds no weights: expected {safetensors_file.WEIGHTS}, its index and shards, or "
        "a .gguf file."
    )


def _pickle(file: Path) -> str:
    return (
        f"{file} is a pickle, which can run any code when it is opened: refused. Take the "
        "checkpoint's safetensors or GGUF file, or convert it where you trust it."
    )
