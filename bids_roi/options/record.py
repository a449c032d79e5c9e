"""What is asked for, as one frozen record that is checked once.

The rows of ``options.table`` are its fields. It is what the rest of the package sees;
nothing below the front door ever sees an argparse namespace.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bids_roi.errors import UsageError
from bids_roi.options.row import refuse_url
from bids_roi.options.running import check_running
from bids_roi.options.settings import SETTING_OPTIONS
from bids_roi.options.table import CONNECTIVITY_OPTIONS, DEFAULT_ATLAS, OPTIONS
from bids_roi.options.words import MEASURES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bids_roi.options.row import Option


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for, checked once.

    Every field is a row of ``OPTIONS``; lists are tuples, absent values are ``None``.
    Only the settings of cleaning are together in one field: those that were given, by
    name, as words of the command line (``options.settings.read_given`` reads them).
    """

    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    task_label: tuple[str, ...] = ()
    run_label: tuple[str, ...] = ()
    echo_label: tuple[str, ...] = ()
    space: tuple[str, ...] = ()
    res: tuple[str, ...] = ()
    den: tuple[str, ...] = ()
    hemi: tuple[str, ...] = ()
    desc: str = "preproc"
    derivatives: Path | None = None
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    atlas: tuple[str, ...] = ()
    atlas_file: tuple[str, ...] = ()
    atlas_dataset: tuple[str, ...] = ()
    atlas_space: str | None = None
    templateflow_home: Path | None = None
    offline: bool = False
    statistic: tuple[str, ...] = ("mean",)
    map_statistic: tuple[str, ...] = ("least_squares",)
    mask: str = "auto"
    min_coverage: float = 0.5
    smoothing_fwhm: float | None = None
    repetition_time: float | None = None
    denoise: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    censored: str = "drop"
    high_variance_confounds: bool = False
    allow_missing_confounds: bool = False
    aroma_dataset: Path | None = None
    min_volumes: int | None = None
    min_time: float | None = None
    relmat: tuple[str, ...] = ()
    fisher_z: bool = False
    partial_estimator: str = "ledoit_wolf"
    min_degrees_of_freedom: float = 1.0
    group_unit: str = "participant"
    stack: tuple[str, ...] = ("timeseries", "relmat")
    executor: str = "processes"
    n_procs: int | None = None
    mem_mb: int | None = None
    run_timeout: float | None = None
    dask_scheduler: str | None = None
    slurm_jobs: int | None = None
    slurm_partition: str | None = None
    slurm_account: str | None = None
    slurm_walltime: str | None = None
    events: str | None = None
    work_dir: Path | None = None
    dry_run: bool = False
    overwrite: bool = False
    stop_on_first_crash: bool = False
    no_report: bool = False
    skip_bids_validation: bool = False

    def __post_init__(self) -> None:
        """Check single values; raise ``UsageError`` with the remedy."""
        paths = (*self.atlas_file, *self.atlas_dataset, *self.denoise, self.mask)
        for text in (*paths, self.events or ""):
            refuse_url(text)
        if not 0 <= self.min_coverage <= 1:
            msg = f"--min-coverage is a share from 0 to 1, not {self.min_coverage:g}."
            raise UsageError(msg)
        if self.repetition_time is not None and not 0.05 <= self.repetition_time <= 20:
            msg = (
                f"--repetition-time is in seconds; {self.repetition_time:g} s is not a"
                " plausible value (0.05 to 20)."
            )
            raise UsageError(msg, remedy="If it is in milliseconds, divide by 1000.")
        if self.smoothing_fwhm is not None and not 0 < self.smoothing_fwhm <= 50:
            msg = (
                f"--smoothing-fwhm is in mm, above 0 and up to 50, not"
                f" {self.smoothing_fwhm:g}."
            )
            raise UsageError(msg, remedy="Leave it out for no smoothing.")
        if not 1 <= self.min_degrees_of_freedom < math.inf:
            msg = (
                "--min-degrees-of-freedom is a number from 1 on, not"
                f" {self.min_degrees_of_freedom:g}."
            )
            remedy = "Below 1 there is nothing that a correlation could rest on."
            raise UsageError(msg, remedy=remedy)
        self._check_matrices()
        check_running({f.name: getattr(self, f.name) for f in fields(self)})
        if "none" in self.stack and len(self.stack) > 1:
            shown = " ".join(self.stack)
            remedy = "Give none alone, or the others without it."
            raise UsageError(f"--stack {shown} contradicts itself.", remedy=remedy)
        for path in (self.bids_filter_file, self.derivatives, self.aroma_dataset):
            if path is not None and not path.exists():
                msg = "there is no such file or folder."
                raise UsageError(msg, where=path, remedy="Check the spelling.")

    def _check_matrices(self) -> None:
        """Refuse options of matrices where no matrix that they act on is asked for."""
        for option in CONNECTIVITY_OPTIONS:
            if option.name == "relmat" or self.value(option) == option.default:
                continue
            acted_on = _measures_of(option.name)
            if not set(acted_on) & set(self.relmat):
                flag, asked = option.flags[0], " ".join(self.relmat) or "none"
                msg = f"{flag} has no effect: --relmat asks for {asked}."
                remedy = f"Add --relmat {acted_on[0]}, or leave {flag} out."
                raise UsageError(msg, remedy=remedy)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Options:
        """Build the record from parsed values; prefixes and repeats are removed."""
        given = {k: v for k, v in values.items() if v is not None}
        for option in OPTIONS:
            if option.many and option.name in given:
                given[option.name] = tuple(dict.fromkeys(given[option.name]))
        for name, prefix in _PREFIXES.items():
            given[name] = tuple(
                dict.fromkeys(v.removeprefix(prefix) for v in given.get(name, ()))
            )
        settings = {
            option.name: given.pop(option.name)
            for option in SETTING_OPTIONS
            if option.name in given
        }
        settings = {k: v for k, v in settings.items() if v is not False}
        return cls(**given, settings=settings)

    def value(self, option: Option) -> Any:  # noqa: ANN401 - of any field
        """Value of an option, given or not."""
        if option in SETTING_OPTIONS:
            return self.settings.get(option.name, option.default)
        return getattr(self, option.name)

    @property
    def atlas_names(self) -> tuple[str, ...]:
        """Atlases by name; the default one where none is asked for in any way."""
        given = self.atlas or self.atlas_file or self.atlas_dataset
        return self.atlas if given else (DEFAULT_ATLAS,)

    def extraction(self) -> dict[str, Any]:
        """Options of extraction that change numbers, by their key in the sidecars."""
        return {
            option.sidecar: getattr(self, option.name)
            for option in OPTIONS
            if option.sidecar and option.of == "run"
        }

    def digest(self) -> str:
        """Hash of the options that change numbers; 12 hexadecimal digits.

        Of a mask image it does not matter where it lies, but what is in it, which is
        not known here.
        """
        values = self.extraction()
        if self.mask not in ("auto", "none"):
            values["Mask"] = "image"
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _measures_of(option: str) -> list[str]:
    """Measures that an option acts on: those that have it, or else all."""
    if option == "fisher_z":
        return [m.name for m in MEASURES if m.stat(fisher_z=True) != m.stat()]
    own = [m.name for m in MEASURES if option in dict(m.parameters).values()]
    return own or [m.name for m in MEASURES]


_PREFIXES = {
    "participant_label": "sub-",
    "session_label": "ses-",
    "task_label": "task-",
    "run_label": "run-",
    "echo_label": "echo-",
    "space": "space-",
    "res": "res-",
    "den": "den-",
    "hemi": "hemi-",
}
