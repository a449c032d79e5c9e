"""Which option differs between what is asked for and outputs that are there.

The digest decides whether something differs; the sidecar tells what. It holds what was
applied, not every word of the command line: where it cannot tell, the message says what
is left to look at.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bids_roi.confounds.strategy_format import describe_strategy
from bids_roi.options.table import OPTIONS
from bids_roi.outputs.digest import release_of
from bids_roi.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategy_format import Strategy
    from bids_roi.options.record import Options


# Of these the sidecar says at most what came of them in a run.
_NOT_TOLD = ("allow_missing_confounds", "aroma_dataset")
_FLAGS = {option.name: option.flags[0] for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between outputs and what is asked for.

    Attributes
    ----------
    text
        The end of a sentence: ``were made with other options: --fd-threshold is 0.5,
        the outputs were made with 0.3``.
    of_atlas
        Whether only the files of the atlas differ.
    """

    text: str
    of_atlas: bool


def tell_differences(
    sidecar: Mapping[str, Any],
    *,
    options: Options,
    strategy: Strategy | None,
    atlas: Atlas,
    more: Mapping[str, Any],
    own_mask: bool = True,
) -> Difference:
    """Say with which other options, version or atlas outputs were made.

    Parameters
    ----------
    sidecar
        Of an output whose digest differs.
    options, strategy, atlas
        What is asked for now.
    more
        Further sidecar keys of the output with the values of now.
    own_mask
        Whether the run has a mask of its own. One without has "none" in its sidecars
        where auto was asked for.
    """
    wanted = dict(_wanted(options, strategy))
    found = dict(_found(sidecar, with_cleaning=strategy is not None))
    now = options.deciding() | dict(more)
    for option in OPTIONS:
        key = option.sidecar
        if key in now or (option.of == "run" and key in sidecar):
            wanted[option.name] = _in_words(now.get(key))
            found[option.name] = _in_words(sidecar.get(key))
    if options.extraction.mask not in ("auto", "none"):
        wanted["mask"] = PurePath(
            options.extraction.mask
        ).name  # a sidecar may have no more
        found["mask"] = PurePath(str(found["mask"])).name
    if options.extraction.mask == "auto" and not own_mask:
        del wanted["mask"]
    said = [
        _say(_FLAGS[name], wanted[name], found[name])
        for name in _FLAGS
        if name in found and name in wanted and _differ(wanted[name], found[name])
    ]
    if strategy is not None:
        said += _tell_strategy(sidecar, strategy)
    parts = [f"were made with other options: {'; '.join(said)}"] if said else []
    parts += _tell_version(sidecar)
    of_atlas = list(_tell_atlas(sidecar, atlas))
    text = "; they ".join([*parts, *of_atlas]) or _tell_what_is_left(strategy)
    return Difference(text, of_atlas=bool(of_atlas) and not parts)


def _wanted(options: Options, strategy: Strategy | None) -> Iterator[tuple[str, Any]]:
    if strategy is None:
        return
    yield from dataclasses.asdict(strategy.settings).items()
    yield "censored", options.cleaning.censored
    yield "high_variance_confounds", options.cleaning.high_variance_confounds


def _found(
    sidecar: Mapping[str, Any], *, with_cleaning: bool
) -> Iterator[tuple[str, Any]]:
    """What the sidecar tells of cleaning, by option."""
    if not with_cleaning:
        return
    settings = _definition(sidecar).get("settings")
    yield from settings.items() if isinstance(settings, dict) else ()
    yield "censored", sidecar.get("CensoredVolumes")
    columns = sidecar.get("ConfoundRegressors") or ()
    yield "high_variance_confounds", "high_variance_0" in columns


def _definition(sidecar: Mapping[str, Any]) -> Mapping[str, Any]:
    found = sidecar.get("DenoisingDefinition")
    return found if isinstance(found, dict) else {}


def _differ(wanted: object, found: object) -> bool:
    blank = (None, False, "none")
    return wanted != found and not (wanted in blank and found in blank)


def _in_words(value: object) -> object:
    """A list as the command line has it."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _say(flag: str, wanted: object, found: object) -> str:
    """Say it of one option.

    >>> _say("--detrend", True, False), _say("--fd-threshold", 0.5, 0.3)
    ('--detrend is given, the outputs were made without it',
     '--fd-threshold is 0.5, the outputs were made with 0.3')
    """
    now = {None: "not given", False: "not given", True: "given"}
    then = {None: "without it", False: "without it", True: "with it"}
    left = now[wanted] if wanted is None or isinstance(wanted, bool) else wanted
    right = then[found] if found is None or isinstance(found, bool) else f"with {found}"
    return f"{flag} is {left}, the outputs were made {right}"


def _tell_strategy(sidecar: Mapping[str, Any], strategy: Strategy) -> Iterator[str]:
    found = sidecar.get("DenoisingStrategy")
    if found != strategy.name:
        yield f"the strategy is {strategy.name}, the outputs were made with {found}"
        return
    if sidecar.get("DenoisingDescription") != strategy.description:
        yield f"the strategy {strategy.name} is described in other words"
    components = _definition(sidecar).get("components")
    if components not in (None, describe_strategy(strategy)["components"]):
        yield f"the strategy {strategy.name} has other columns"


def _tell_version(sidecar: Mapping[str, Any]) -> Iterator[str]:
    version = str(sidecar.get("SoftwareVersion", "")).removeprefix("bids_roi ")
    if version and release_of(version) != release_of(__version__):
        yield f"were made with another version: {version}, this is {__version__}"


def _tell_atlas(sidecar: Mapping[str, Any], atlas: Atlas) -> Iterator[str]:
    files = (
        ("image", sidecar.get("AtlasImageDigest"), atlas.image_digest),
        ("table", sidecar.get("AtlasTableDigest"), atlas.table_digest),
    )
    for what, found, digest in files:
        if str(found or "").removeprefix("sha256:") != (digest or ""):
            yield f"were made with another atlas file: the {what} of {atlas.name}"
    moved = str(sidecar.get("AtlasTransformDigest") or "").removeprefix("sha256:")
    if moved != (atlas.route.digest if atlas.route else ""):
        yield f"were made with another transform to {atlas.name}"
    areas = str(sidecar.get("VertexAreasDigest") or "").removeprefix("sha256:")
    if areas != (atlas.areas.digest if atlas.areas else ""):
        yield "were made with other weights of vertices (--vertex-weights, --surface)"


def _tell_what_is_left(strategy: Strategy | None) -> str:
    where = "with other options, another version or another atlas file"
    if strategy is None:
        return f"were made {where}"
    flags = ", ".join(_FLAGS[name] for name in _NOT_TOLD)
    return (
        f"were made with other options ({flags} or the columns of the strategy"
        f" {strategy.name} differ)"
    )
