"""The plan of a ``nrp purify``: which file becomes which, settled before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from service.errors import CommandInputError
from service.images import ImageFormat

READABLE = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif"})
KEPT: Mapping[str, ImageFormat] = MappingProxyType(
    {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".webp": "WEBP"}
)


@dataclass(frozen=True)
class Errand:
    """One file to be purified into another."""

    source: Path
    target: Path
    image_format: ImageFormat


def find_images(inputs: Sequence[Path], skip: Path | None = None) -> list[tuple[Path, Path]]:
    """Every image named by ``inputs``, once, with the relative path it keeps: its name, or its path in a folder.

    Folders are searched through, by file extension and without ``skip`` (the output folder of an earlier run).
    Raises CommandInputError for an input that is not there, or when there is no image at all.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for named in inputs:
        for source, relative in _images_of(named, skip):
            found.setdefault(source.resolve(), (source, relative))
    if not found:
        raise CommandInputError(f"no image found; files end in {', '.join(sorted(READABLE))}")
    return list(found.values())


def find_sources(inputs: Sequence[Path]) -> list[Path]:
    """The images of ``find_images``, where nothing is written."""
    return list(dict.fromkeys(source for source, _ in find_images(inputs)))


def make_plan(inputs: Sequence[Path], output: Path, *, force_png: bool) -> list[Errand]:
    """Names, folders and formats are kept; BMP, GIF and files without a known ending become PNG.

    Raises CommandInputError when two inputs would become one file, or an input would be overwritten.
    """
    found = find_images(inputs, output.resolve())
    sources = {source.resolve() for source, _ in found}
    taken: dict[Path, Path] = {}
    errands = []
    for source, relative in found:
        errand = _errand(source, output / relative, force_png)
        target = errand.target.resolve()
        if target in sources:
            raise CommandInputError(f"{errand.target} is an input and would be overwritten; choose another --output")
        if target in taken:
            raise CommandInputError(
                f"{taken[target]} and {source} would both become {errand.target}; purify them into separate folders"
            )
        taken[target] = source
        errands.append(errand)
    return errands


def _images_of(named: Path, skip: Path | None) -> Iterator[tuple[Path, Path]]:
    if named.is_file():
        yield named, Path(named.name)
    elif named.is_dir():
        for path in sorted(named.rglob("*")):
            inside_skipped = skip is not None and path.resolve().is_relative_to(skip) and not _is_same(named, skip)
            if path.suffix.lower() in READABLE and path.is_file() and not inside_skipped:
                yield path, path.relative_to(named)
    else:
        raise CommandInputError(f"{named} does not exist; name image files or folders of them")


def _is_same(folder: Path, other: Path) -> bool:
    return folder.resolve() == other


def _errand(source: Path, target: Path, force_png: bool) -> Errand:
    image_format = KEPT.get(source.suffix.lower(), "PNG")
    if force_png or source.suffix.lower() not in KEPT:
        known = source.suffix.lower() in READABLE
        return Errand(source, target.with_suffix(".png") if known else target.with_name(target.name + ".png"), "PNG")
    return Errand(source, target, image_format)
