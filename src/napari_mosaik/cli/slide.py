"""Commands on slide files: slide (what it is) and profiles (pixel sizes of scanners)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_mosaik.cli.common import (
    JsonOutput,
    OnDamage,
    PageOption,
    example_command,
    given_spacing,
    naming_options,
    report_warning,
)
from napari_mosaik.cli.show import Bar, print_json, table
from napari_mosaik.core.artifact import Progress
from napari_mosaik.core.errors import InputError, MissingPixelSize

if TYPE_CHECKING:
    from napari_mosaik.io.slide import Slide

__all__ = ["commands"]

Pair = tuple[float, float]
_LISTED = 20


commands = typer.Typer()


@example_command(commands, "slide", "slide he.svs --json")
def slide(
    file: Annotated[Path, typer.Argument(help="Slide file, or OME-Zarr or DICOM folder.")],
    spacing: Annotated[
        str, typer.Option(help="Pixel size, µm; 0.25, or 0.25x0.26 for row x column.")
    ] = "",
    profile: Annotated[str, typer.Option(help="Scanner profile with the pixel size.")] = "",
    icc: Annotated[
        bool, typer.Option("--icc", help="Convert colours to sRGB by the ICC profile.")
    ] = False,
    associated: Annotated[
        Path | None,
        typer.Option(help="Folder to export label and macro images to. They may show names."),
    ] = None,
    damaged: OnDamage = "stop",
    page: PageOption = None,
    json: JsonOutput = False,
) -> None:
    """Describe a slide file: reader, size, levels, pixel size and its source.

    With --damaged skip every tile is decoded once, and damaged tiles are listed.
    """
    given, source = given_spacing(spacing, profile)
    with naming_options(page="--page"):
        record, lacking = _described(
            file, given, source, icc=icc, damaged=damaged, page=page, quiet=json
        )
    record["file"] = str(file)
    if associated is not None:
        record["associated"] = _export(file, associated)
    if json:
        print_json(record)
    else:
        _print_facts(file, record)
    if lacking is not None:
        raise lacking
    for text in record["warnings"]:
        report_warning(text)


def _described(
    file: Path,
    given: Pair | None,
    source: Any,
    *,
    icc: bool,
    damaged: str,
    page: int | None,
    quiet: bool,
) -> tuple[dict[str, Any], MissingPixelSize | None]:
    """The facts of a slide, with the error if its pixel size is unknown."""
    from napari_mosaik.io import open_slide
    from napari_mosaik.io.slide.facts import slide_facts
    from napari_mosaik.io.slide.types.damage import policy_named

    lacking, policy = None, policy_named(damaged)
    try:
        opened = open_slide(file, given, spacing_source=source, icc=icc, damaged=policy, page=page)
    except MissingPixelSize as error:
        lacking = error  # opened with a provisional size, which nobody typed
        opened = open_slide(file, 1.0, spacing_source="ruler", icc=icc, damaged=policy, page=page)
    with opened:
        facts = slide_facts(opened, measured=lacking is None)
        if policy == "skip":
            facts["damaged"] = _damage(opened, quiet)
        return facts, lacking


def _damage(opened: Slide, quiet: bool) -> dict[str, Any]:
    """Decode every tile; the summary of the damaged ones."""
    with Bar(quiet=quiet) as bar:
        for done, total in opened.find_damage():
            bar.show("checking every tile", Progress(done, total, f"{done} of {total} tiles"))
    return opened.damage_record()


def _export(file: Path, folder: Path) -> list[str]:
    from napari_mosaik.io.slide.facts import PRIVACY, export_associated

    written = export_associated(file, folder)
    typer.echo(f"privacy: {PRIVACY}", err=True)
    return [str(path) for path in written]


_SOURCES = {
    "header": "from the file's header",
    "user": "typed",
    "profile": "from the scanner profile",
    "ruler": "measured with the ruler",
}


def _print_damage(damage: dict[str, Any]) -> None:
    tiles = damage["tiles"]
    if not tiles:
        _line("damaged", "none: every tile can be decoded")
        return
    from napari_mosaik.view.formatting import count

    _line("damaged", f"{count(len(tiles), 'tile')}, {damage['area_mm2']:.3g} mm²")
    for tile in tiles[:_LISTED]:
        row, column = tile["origin_px"]
        _line("", f"row {row}, column {column} px, level {tile['level']}: {tile['reason']}")
    if len(tiles) > _LISTED:
        _line("", f"and {len(tiles) - _LISTED} more (all of them with --json)")


def _print_facts(file: Path, record: dict[str, Any]) -> None:
    rows, cols = record["shape"]
    typer.echo(f"{file.name}: read by {record['reader']}; {record['why']}")
    size = record["size_mm"]
    _line("size", f"{rows} x {cols} px" + (f", {size[0]:g} x {size[1]:g} mm" if size else ""))
    spacing = record["spacing_um"]
    if spacing:
        source = _SOURCES[record["spacing_source"]]
        _line("pixel", f"{spacing[0]:.4g} x {spacing[1]:.4g} µm ({source})")
    else:
        _line("pixel", "size unknown")
    for level in record["levels"]:
        shape, tile = level["shape"], level["tile"]
        kind = "virtual" if level["virtual"] else "stored"
        _line(
            "level",
            f"1:{max(level['downsample']):g}, {shape[0]} x {shape[1]} px, {kind}, read in tiles of "
            f"{tile[0]} x {tile[1]}",
        )
    _line("loaded", _loaded(record["loaded"]))
    for key, value in record["properties"].items():
        _line(key.replace("_", " "), value)
    if "damaged" in record:
        _print_damage(record["damaged"])
    for text in record["missing"]:
        _line("missing", text)
    for path in record.get("associated", ()):
        _line("written", path)


def _line(name: str, text: str) -> None:
    typer.echo(f"  {name:12} {text}")


def _loaded(loaded: dict[str, Any]) -> str:
    if loaded["whole"]:
        return f"the whole image, {loaded['decoded_mib']:.4g} MiB"
    first = f"the coarsest level ({loaded['coarsest_mib']:.3g} MiB)"
    rest = f"of {loaded['decoded_mib']:.4g} MiB at full size only the tiles in use"
    return f"{first}; {rest}, at most {loaded['cache_mib']:.4g} MiB"


@example_command(commands, "profiles", "profiles --add AT2 --spacing 0.25")
def profiles(
    add: Annotated[str, typer.Option(metavar="NAME", help="Add or replace this profile.")] = "",
    spacing: Annotated[
        str, typer.Option(help="With --add: pixel size, µm; 0.25, or 0.25x0.26 for row x column.")
    ] = "",
    from_slide: Annotated[
        Path | None, typer.Option("--from", help="With --add: take the size from this slide.")
    ] = None,
    note: Annotated[str, typer.Option(help="With --add: where the size comes from.")] = "",
    remove: Annotated[str, typer.Option(metavar="NAME", help="Remove this profile.")] = "",
    json: JsonOutput = False,
) -> None:
    """List, add or remove scanner profiles: pixel sizes for slides that state none."""
    from napari_mosaik.io.profiles import add_profile, profiles_file, read_profiles, remove_profile

    if add and remove:
        raise InputError("give either --add or --remove, not both")
    if not add and (spacing or from_slide or note):
        raise InputError("--spacing, --from and --note need --add NAME: the name of the profile")
    if add:
        add_profile(add, _profile_size(spacing, from_slide), note)
    if remove:
        remove_profile(remove)
    known, file = read_profiles(), profiles_file()
    if json:
        values = {name: profile.model_dump() for name, profile in known.items()}
        print_json({"file": str(file), "profiles": values})
        return
    if not known:
        typer.echo(f"no scanner profiles yet ({file}); add one with --add NAME --spacing UM")
        return
    rows = [
        [name, f"{p.spacing_um[0]:g} x {p.spacing_um[1]:g}", p.note] for name, p in known.items()
    ]
    table("Scanner profiles", ["name", "pixel (row x column), µm", "note"], rows, words=True)
    typer.echo(f"stored in {file}, a text file that you may edit")


def _profile_size(spacing: str, from_slide: Path | None) -> Pair:
    from napari_mosaik.io import open_slide

    if bool(spacing) == (from_slide is not None):
        raise InputError("a new profile needs either --spacing UM or --from SLIDE")
    if from_slide is not None:
        with open_slide(from_slide) as opened:
            return opened.lattice.spacing_um
    given, _ = given_spacing(spacing)
    assert given is not None
    return given
