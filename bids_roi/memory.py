"""Images and tables in memory as files of a temporary folder, where the app reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bids_roi.arguments import say
from bids_roi.errors import ConfoundsError, MissingInput, UsageError
from bids_roi.files.names import parse_name
from bids_roi.images.nifti import file_of_image, save_image
from bids_roi.options.row import local_path

if TYPE_CHECKING:
    from pathlib import Path


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


def frame_of_confounds(value: Any, word: str) -> pd.DataFrame:  # noqa: ANN401 - unknown
    """Columns of confounds in memory: a DataFrame, Series, mapping, or array."""
    named = isinstance(value, np.ndarray) and value.dtype.names is not None
    if isinstance(value, pd.Series):
        value = value.to_frame()
    if isinstance(value, pd.DataFrame | Mapping) or named:
        try:
            frame = pd.DataFrame(value)
        except (ValueError, TypeError) as error:
            msg = f"{word} is no table: {error}."
            raise ConfoundsError(msg, remedy="Give columns of equal length.") from error
    elif isinstance(value, np.ndarray) and value.ndim in (1, 2):
        frame = pd.DataFrame(value.reshape(len(value), -1))
    else:
        msg = f"{word} is a path, a DataFrame or an array (volumes, columns), not"
        raise UsageError(f"{msg} {say(value)}.")
    frame.columns = [
        name if isinstance(name, str) else f"confound{number}"
        for number, name in enumerate(frame.columns, 1)
    ]
    twice = frame.columns[frame.columns.duplicated()]
    if frame.empty or len(twice):
        what = f"holds {twice[0]} twice" if len(twice) else "is empty"
        raise ConfoundsError(f"{word} {what}.", remedy="Give each column once.")
    for name in frame:
        try:
            column = pd.to_numeric(frame[name])
            if column.dtype.kind not in "iufb":
                raise TypeError(column.dtype)  # complex, or a time
        except (ValueError, TypeError) as error:
            msg = f"{word}: the column {name} does not hold numbers."
            raise ConfoundsError(msg, remedy="Leave it out.") from error
        frame[name] = column.astype(float)
    if np.isinf(frame.to_numpy()).any():
        msg = f"{word} holds values that are infinite."
        raise ConfoundsError(msg, remedy="NaN stands for a missing value.")
    return frame
