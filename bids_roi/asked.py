"""A call of Python as the app is asked: which runs, with which options, by which name.

Images and tables in memory become files of a ``Desk``, a temporary folder, where the
app reads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bids_roi.arguments import python_words, say
from bids_roi.atlases.asked import parse_combination
from bids_roi.atlases.names import key_of_file, name_of_word, space_of
from bids_roi.atlases.shelf import AtlasShelf
from bids_roi.dataset.layout import find_runs
from bids_roi.dataset.query import KINDS
from bids_roi.dataset.run import BoldRun
from bids_roi.errors import BidsRoiError, ConfoundsError, MissingInput, UsageError
from bids_roi.files.names import parse_name
from bids_roi.files.tables import read_json
from bids_roi.images.nifti import file_of_image, save_image
from bids_roi.options.record import Options
from bids_roi.options.row import local_path
from bids_roi.options.table import Atlases
from bids_roi.outputs.records import RAW
from bids_roi.participant.confounds import load_strategies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bids_roi.atlases.open import Atlas
    from bids_roi.confounds.strategies import Strategy

# What names of files hold, and those of atlases do not.
_FILE_ENDINGS = (".nii", ".nii.gz", ".gii", ".annot")
# Columns that settings read, by the setting; they are for censoring.
_READ_BY = {
    "fd_threshold": "framewise_displacement",
    "std_dvars_threshold": "std_dvars",
    "dummy_scans": "non_steady_state_outlier",
}


@dataclass(frozen=True, slots=True)
class Work:
    """What to do for one run: the run with its options, or why nothing can be."""

    key: Any
    options: Options
    strategies: tuple[Strategy | None, ...]
    words: tuple[str, ...]
    run: BoldRun | None = None
    error: BidsRoiError | None = None

    def asking(self) -> Options:
        """The options, by which who names a run asks for its space."""
        space = (self.run.space if self.run is not None else None) or "native"
        own = dataclasses.replace(self.options.input, space=(space,))
        return dataclasses.replace(self.options, input=own)


@dataclass(slots=True)
class Call:
    """What holds for all runs of a call."""

    # Where what is in memory goes.
    desk: Desk
    # Checked values of options.
    given: dict[str, Any]
    # Of the runs, where it is given.
    space: str | None
    # Canonical names by the words that asked for them.
    atlases: dict[str, str] = field(default_factory=dict)
    # Whether confounds without a strategy keep their means.
    plain_confounds: bool = False
    _files: dict[str, Path] = field(default_factory=dict)
    _named: list[str] = field(default_factory=list)
    _combined: list[str] = field(default_factory=list)
    _seeds: list[Path] = field(default_factory=list)
    _shelves: dict[Atlases, AtlasShelf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a space that is none."""
        if self.space is not None:
            given: object = self.space
            if not (isinstance(given, str) and given):
                msg = f"space is the label of a template, not {say(self.space)}."
                raise UsageError(msg, remedy="For example 'MNI152NLin2009cAsym'.")
            self.space = self.space.removeprefix("space-")

    def add_atlases(self, atlases: Mapping[Any, Any], table: object) -> None:
        """Add the atlases, with the tables of those that are no names."""
        tables = share(table, atlases, "atlas_table", each=True)
        for key, item in atlases.items():
            word = f"atlas[{key!r}]" if len(atlases) > 1 else "atlas"
            if isinstance(key, str) and not key:
                raise UsageError("the name of an atlas is empty.")
            if (own := self._add_other(item, tables[key])) is not None:
                self.atlases[key if isinstance(key, str) else own] = own
                continue
            if isinstance(item, str) and (name := _as_name(item, tables[key])):
                canonical = name_of_word(name)
                self._named.append(name)
                self.atlases[key if isinstance(key, str) else name] = canonical
                continue
            text, image = self._write_atlas(item, tables[key], key, word)
            space = None if space_of(image) else "native"
            wanted = Atlases(atlas_file=(text,), atlas_space=space)
            (canonical,) = AtlasShelf(wanted).names
            self._files[text] = image
            self.atlases[key if isinstance(key, str) else canonical] = canonical

    def _add_other(self, item: object, table: object) -> str | None:
        """Name of a combination, or of a table of coordinates; ``None`` for others."""
        if not isinstance(item, str | Path) or table is not None:
            return None
        text = str(item)
        # Image and table in one word, as on the command line, are told elsewhere.
        alone = "," not in text or Path(item).exists()
        if text.endswith((".tsv", ".csv")) and alone:
            self._seeds.append(check_present(Path(item).absolute()))
            return key_of_file(self._seeds[-1]).name
        if "=" not in text or text[:2] in ("L=", "R=") or Path(item).exists():
            return None
        key, _ = parse_combination(text)
        self._combined.append(text)
        return key.name

    def _write_atlas(
        self, item: object, table: object, key: object, word: str
    ) -> tuple[str, Path]:
        """Text that asks for an atlas of one's own, and its (first) image."""
        beside = ""
        if isinstance(table, pd.DataFrame):
            beside = str(self.desk.table(table, "atlas", "atlas_table"))
        elif (path := as_path(table, "atlas_table")) is not None:
            beside = str(check_present(path))
        elif table is not None:
            msg = f"atlas_table is a path or a DataFrame, not {say(table)}."
            raise UsageError(msg, remedy="It has the columns index and name.")
        tail = f",{beside}" if beside else ""
        if isinstance(item, str) and item[:2] in ("L=", "R="):
            first = item.partition(",")[0].partition("=")[2]
            return item + tail, Path(first)
        if isinstance(item, str) and "#" in item and not Path(item).exists():
            image, _, chosen = item.rpartition("#")
            path = check_present(Path(image).absolute())
            return f"{path}#{chosen}{tail}", path
        letters = "".join(c for c in key if c.isalnum()) if isinstance(key, str) else ""
        number = key + 1 if isinstance(key, int) and word != "atlas" else ""
        stem = letters or f"atlas{number}"
        path = self.desk.image(item, word, stem)
        if "," in str(path):  # which parts image and table
            path = self.desk.link(path)
        return f"{path}{tail}", path

    def prepare(
        self,
        key: Any,  # noqa: ANN401 - of a mapping that was given
        item: object,
        *,
        mask: object,
        confounds: object,
        strategies: tuple[str, ...],
    ) -> Work:
        """What to do for one run; what is wrong with its files is told in it."""
        path = self.desk.bold(item, "bold" if key == 0 else f"bold[{key!r}]")
        values: dict[str, Any] = {"atlas": tuple(self._named), "strategy": strategies}
        values |= {
            "combine": tuple(self._combined),
            "seeds": tuple(map(str, self._seeds)),
        }
        table = as_path(confounds, "confounds")
        if table is not None:
            check_present(table)
            if not strategies:
                msg = "confounds= is read for head motion only: no column of a file is"
                warnings.warn(
                    f"{msg} regressed out; strategy= says which.", stacklevel=4
                )
        elif confounds is not None:
            frame = frame_of_confounds(confounds)
            table = self.desk.table(frame, "confounds", "confounds")
            if not strategies:
                values["strategy"] = self._regress_all(frame)
        if mask is not None:
            own = mask in ("auto", RAW) if isinstance(mask, str) else False
            image = mask if own else self.desk.image(mask, "mask", "mask")
            values["mask"] = str(image)
        declared = self._declare(path)
        if self._files:
            values["atlas_file"] = tuple(self._files)
        if any(space_of(own) is None for own in (*self._files.values(), *self._seeds)):
            values["atlas_space"] = declared
        options = Options.from_values(self.given | values)
        found = load_strategies(options)
        labels = [RAW if s is None else s.label for s in found]
        given = [
            label if word.endswith(".json") or os.sep in word else word
            for word, label in zip(options.cleaning.strategy, labels, strict=False)
        ]
        words = tuple(given or labels)
        work = Work(key, options, found, words)
        try:
            run = find_run(path, options, declared)
        except BidsRoiError as error:
            return dataclasses.replace(work, error=error)
        if table is not None:
            run = dataclasses.replace(run, confounds_path=table)
        return dataclasses.replace(work, run=run)

    def shelf(self, work: Work) -> AtlasShelf:
        """The atlases of a run, opened once for all that lie in one space."""
        wanted = work.options.atlases
        if wanted not in self._shelves:
            self._shelves[wanted] = AtlasShelf(wanted)
        return self._shelves[wanted]

    def open_given(self) -> tuple[Atlas, ...]:
        """The atlases that are images, as far as they can be opened without a run."""
        if not self._files:
            return ()
        spaces = [space_of(image) for image in self._files.values()]
        space = "native" if None in spaces else None
        shelf = AtlasShelf(Atlases(atlas_file=tuple(self._files), atlas_space=space))
        return shelf.open_given()

    def _declare(self, path: Path) -> str:
        """Space of a run, from its name or from what is given with it."""
        declared = self.space or space_of(path)
        if declared is None and root_of(path) is not None:
            declared = "native"  # as fMRIPrep names the series on its own grid
        if declared is None and self._files:
            # Who gives both images says that they belong together.
            told = filter(None, map(space_of, self._files.values()))
            declared = next(told, "native")
        if declared is None:
            msg = "the file name does not tell the space, which an atlas by name needs."
            raise UsageError(msg, where=path, remedy="Give it with space=.")
        return declared

    def _regress_all(self, frame: pd.DataFrame) -> tuple[str, ...]:
        """Strategy that takes out all columns, but for those that settings read."""
        read = tuple(
            column
            for setting, column in _READ_BY.items()
            if self.given.get(setting, RAW) != RAW
            and (setting != "dummy_scans" or self.given[setting] == "auto")
        )
        columns = [name for name in frame if not (read and name.startswith(read))]
        if not columns:
            return ()
        strategy = {
            "name": "confounds",
            "label": "confounds",
            "description": "All columns of the confounds that were given.",
            "components": [{"columns": columns}],
            "settings": {"standardize_confounds": not self.plain_confounds},
        }
        path = self.desk.folder / f"{len(list(self.desk.folder.iterdir()))}.json"
        path.write_text(json.dumps(strategy), encoding="utf-8")
        return (str(path),)


def _as_name(item: str, table: object) -> str:
    """The name of an atlas, or nothing where a text is that of a file."""
    image = item.partition(",")[0]
    if Path(item).exists() or item[:2] in ("L=", "R="):
        return ""
    if "," in item and Path(image).exists():
        msg = f"'{item}' is an image and its table."
        remedy = "Give them apart: atlas=IMAGE, atlas_table=TABLE."
        raise UsageError(msg, remedy=remedy)
    if item.partition("#")[0].endswith(_FILE_ENDINGS) or "/" in item:
        return ""
    if table is not None:
        msg = f"'{item}' is no file, so that atlas_table has nothing to go with."
        raise UsageError(msg, remedy="Leave the table out for atlases by name.")
    return item


def list_given(value: Any, word: str) -> dict[Any, Any]:  # noqa: ANN401 - what is given
    """One or several, by their keys: those of a dict, or positions from 0."""
    if isinstance(value, dict):
        found = dict(value)
    elif isinstance(value, list | tuple):
        found = dict(enumerate(value))
    else:
        found = {0: value}
    if not found or any(item is None for item in found.values()):
        msg = f"{word} is missing." if value is None else f"{word} holds nothing."
        kind = "a name, a path" if word == "atlas" else "a path"
        raise UsageError(msg, remedy=f"Give {kind} or a nibabel image, or several.")
    return found


def share(
    value: Any,  # noqa: ANN401 - what is given
    among: Mapping[Any, Any],
    word: str,
    *,
    each: bool = False,
) -> dict[Any, Any]:
    """What belongs to each; one for all where that makes sense."""
    if isinstance(value, dict) and not (each and len(among) == 1 and 0 in among):
        if set(value) != set(among):
            keys = ", ".join(map(repr, among))
            msg = f"the keys of {word} are {', '.join(map(repr, value))}, not {keys}."
            raise UsageError(msg, remedy="Give one for each, None for none.")
        return value
    if isinstance(value, list | tuple):
        if len(value) != len(among):
            msg = f"{word} has {len(value)} entries for {len(among)}."
            raise UsageError(msg, remedy="Give one for each, None for none.")
        return dict(zip(among, value, strict=True))
    if each and value is not None and len(among) > 1:
        msg = f"{word} is one for {len(among)}."
        raise UsageError(msg, remedy="Give a list with one for each, None for none.")
    return dict.fromkeys(among, value)


def find_run(path: Path, options: Options, space: str) -> BoldRun:
    """The run with its partners, where it lies in a derivative; else the file alone."""
    entities = parse_name(path).entities
    labels, root = dict(entities), root_of(path)
    run = None
    if root is not None:
        desc = labels.get("desc", options.input.desc)
        found = find_runs(
            root,
            labels["sub"],
            dataclasses.replace(options.input, desc=desc),
            tuple(KINDS),
            own_masks=options.extraction.mask == "auto",
        )
        run = next((each for each in found if path in each.files), None)
        for session in (each for each in found if each.path in path.parents):
            if session.error is not None:  # its mask and confounds are not known
                raise session.error
    if run is None:
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        beside = path.with_name(f"{stem}.json")
        metadata = read_json(beside) if beside.exists() else {}
        run = BoldRun(path.parent, (path,), entities, None, None, metadata)
    if run.space is None:
        label, _, cohort = space.partition("+")
        more = (("space", label), *((("cohort", cohort),) if cohort else ()))
        run = dataclasses.replace(run, entities=(*run.entities, *more))
    return run


def root_of(path: Path) -> Path | None:
    """Root of the dataset in whose ``sub-*/func`` a run lies; ``None`` for others."""
    folder = f"sub-{parse_name(path).get('sub')}"
    if path.parent.name != "func":
        return None
    return next((p.parent for p in path.parents if p.name == folder), None)


@dataclass(frozen=True, slots=True)
class Desk:
    """A temporary folder, and what its files are called in messages."""

    folder: Path
    places: dict[Path, str] = field(default_factory=dict)

    def bold(self, image: Any, word: str) -> Path:  # noqa: ANN401 - a nibabel image
        """File of a BOLD series: its own, where the image is as the file has it.

        One that was changed since it was read lies in a copy of its folder, so that
        mask, confounds and transforms are found beside it, as they would be.
        """
        if (path := as_path(image, word)) is not None:
            return path
        origin, same = file_of_image(image, word)
        if origin is not None and same:
            return origin
        if origin is None:
            return self._save(image, f"image_bold{_ending(image)}", word)
        stem = origin.name.removesuffix(".gz").removesuffix(".nii")
        root, folder = root_of(origin), self._folder()
        if root is None:
            beside = origin.with_name(f"{stem}.json")
            if beside.is_file():
                (folder / beside.name).symlink_to(beside)
        else:
            for part in origin.relative_to(root).parts:
                _link_all(root, folder, but=part)
                root, folder = root / part, folder / part
                if part != origin.name:
                    folder.mkdir()
            folder = folder.parent
        path = folder / f"{stem}.nii"
        save_image(image, path)
        self.places[path] = f"{word} ({origin.name}, changed in memory)"
        return path

    def image(self, image: Any, word: str, name: str) -> Path:  # noqa: ANN401 - as above
        """File of an atlas or a mask."""
        if (path := as_path(image, word)) is not None:
            return path
        origin, same = file_of_image(image, word)
        if origin is not None and same:
            return origin
        if origin is not None:
            name = origin.name.partition(".")[0]
        return self._save(image, f"{name}{_ending(image)}", word)

    def link(self, path: Path) -> Path:
        """Link to a file, under a name without commas."""
        link = self._folder() / path.name.replace(",", "")
        link.symlink_to(check_present(path))
        self.places[link] = str(path)
        return link

    def table(self, frame: pd.DataFrame, name: str, word: str) -> Path:
        """File of a table."""
        path = self._folder() / f"{name}.tsv"
        frame.to_csv(path, sep="\t", index=False, na_rep="n/a")
        self.places[path] = word
        return path

    def _save(self, image: Any, name: str, word: str) -> Path:  # noqa: ANN401 - as above
        path = self._folder() / name
        save_image(image, path)
        self.places[path] = word
        return path

    def _folder(self) -> Path:
        """Make a folder of its own, as names may be alike."""
        path = self.folder / str(len(list(self.folder.iterdir())))
        path.mkdir()
        return path


@contextlib.contextmanager
def open_desk() -> Iterator[Desk]:
    """A desk while it is needed; errors on the way are said in the words of Python."""
    with tempfile.TemporaryDirectory(prefix="bids_roi-") as name:
        desk = Desk(Path(name))
        with python_words(desk.places):
            yield desk


def _ending(image: Any) -> str:  # noqa: ANN401 - a nibabel image
    """Ending of an image's file; grayordinates are known by theirs."""
    if type(image).__name__ != "Cifti2Image":
        return ".nii"
    labels = image.ndim and type(image.header.get_axis(0)).__name__ == "LabelAxis"
    return ".dlabel.nii" if labels else ".dtseries.nii"


def _link_all(source: Path, target: Path, *, but: str) -> None:
    """Link to all that a folder holds, but one."""
    for path in source.iterdir():
        if path.name != but:
            (target / path.name).symlink_to(path)


def as_path(value: Any, word: str) -> Path | None:  # noqa: ANN401 - what is given
    """Absolute path of a file that is given as one; ``None`` for another object."""
    if not isinstance(value, str | os.PathLike):
        return None
    text = os.fspath(value)
    if isinstance(text, bytes) or not text or "\0" in text:
        raise UsageError(f"{word} is no path: {say(text)}.")
    return local_path(text).absolute()


def check_present(path: Path) -> Path:
    """Refuse the path of a file that is not there."""
    if not path.is_file():
        remedy = "Check the path."
        raise MissingInput("there is no such file.", where=path, remedy=remedy)
    return path


def frame_of_confounds(value: Any) -> pd.DataFrame:  # noqa: ANN401 - unknown
    """Columns of confounds in memory: a DataFrame, Series, mapping, or array."""
    named = isinstance(value, np.ndarray) and value.dtype.names is not None
    if isinstance(value, pd.Series):
        value = value.to_frame()
    if isinstance(value, pd.DataFrame | Mapping) or named:
        try:
            frame = pd.DataFrame(value)
        except (ValueError, TypeError) as error:
            msg = f"confounds is no table: {error}."
            raise ConfoundsError(msg, remedy="Give columns of equal length.") from error
    elif isinstance(value, np.ndarray) and value.ndim in (1, 2):
        frame = pd.DataFrame(value.reshape(len(value), -1))
    else:
        msg = "confounds is a path, a DataFrame or an array (volumes, columns), not"
        raise UsageError(f"{msg} {say(value)}.")
    frame.columns = [
        name if isinstance(name, str) else f"confound{number}"
        for number, name in enumerate(frame.columns, 1)
    ]
    twice = frame.columns[frame.columns.duplicated()]
    if frame.empty or len(twice):
        what = f"holds {twice[0]} twice" if len(twice) else "is empty"
        raise ConfoundsError(f"confounds {what}.", remedy="Give each column once.")
    for name in frame:
        try:
            column = pd.to_numeric(frame[name])
            if column.dtype.kind not in "iufb":
                raise TypeError(column.dtype)  # complex, or a time
        except (ValueError, TypeError) as error:
            msg = f"confounds: the column {name} does not hold numbers."
            raise ConfoundsError(msg, remedy="Leave it out.") from error
        frame[name] = column.astype(float)
    if np.isinf(frame.to_numpy()).any():
        msg = "confounds holds values that are infinite."
        raise ConfoundsError(msg, remedy="NaN stands for a missing value.")
    return frame
