"""Text for a methods section, from the sidecars: what truly ran, and whom to cite."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.atlases.names import format_bibtex
from bids_roi.options.words import find_statistic
from bids_roi.report.paper import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


# Of single voxels, for the text.
_MEASURES = {
    "homogeneity": "the mean correlation with the regional mean",
    "voxel_tsnr": "the mean tSNR",
}
_LAGS = {
    "truncate": "lags up to the first at which they are no larger than of white noise",
    "tukey": "lags under Tukey's window",
}
_CURVES = {"cubic_spline": "cubic splines"}
_DATA = Path(__file__).parents[1] / "data" / "references.json"


@dataclass(frozen=True, slots=True)
class Methods:
    """Text with citations."""

    paragraphs: tuple[str, ...]  # citations as (Esteban et al. 2019)
    references: tuple[tuple[str, str, str], ...]  # key, text and DOI, by key
    bibtex: str  # the same for a reference manager


@functools.cache
def _known() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(_DATA.read_text("utf-8"))
    return content


class _Cited:
    """What is cited, collected in passing."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.bibtex: dict[str, str] = {}

    def __call__(self, *keys: str) -> str:
        self.keys |= dict.fromkeys(keys)
        return f"({'; '.join(map(_briefly, (_known()[key] for key in keys)))})"


def write_methods(
    dataset: Mapping[str, Any],
    atlases: Mapping[str, Mapping[str, Any]],
    series: Iterable[tuple[str, Mapping[str, Any]]],
    relmats: Iterable[Mapping[str, Any]],
    n_regions: Mapping[str, int],
) -> Methods:
    """Write what was done.

    Of the outputs: their ``dataset_description.json``, descriptions of the atlases,
    ``(strategy, sidecar)`` of the series, sidecars of the matrices, regions per atlas.
    """
    cite = _Cited()
    found = list(series)
    moved = {said.get("Atlas") for _, said in found if said.get("AtlasTransform")}
    paragraphs = [
        _extraction(dataset, [sidecar for _, sidecar in found], cite),
        *(
            _atlas(name, description, n_regions.get(name), cite, moved=name in moved)
            for name, description in atlases.items()
        ),
    ]
    strategies: dict[str, list[Mapping[str, Any]]] = {}
    for strategy, sidecar in found:
        strategies.setdefault(strategy, []).append(sidecar)
    as_extracted = strategies.pop("none", None)
    paragraphs += [_cleaning(name, own, cite) for name, own in strategies.items()]
    if as_extracted:
        text = "The series as extracted were not cleaned, filtered or scaled."
        paragraphs.append(text)
    several = len({_statistic(sidecar) for _, sidecar in found}) > 1
    paragraphs += _connectivity(list(relmats), cite, several=several)
    paragraphs.append(
        f"Files were found with PyBIDS {cite('PyBIDS')} and computed on with NumPy"
        f" {cite('NumPy')} and SciPy {cite('SciPy')}."
        f" The outputs follow BIDS {cite('BIDS')}."
    )
    return _finish(paragraphs, cite)


def _extraction(
    dataset: Mapping[str, Any], sidecars: Sequence[Mapping[str, Any]], cite: _Cited
) -> str:
    sidecar = sidecars[0] if sidecars else {}
    tools = [t for t in dataset.get("GeneratedBy", ()) if t.get("Name") != "bids_roi"]
    before = ""
    for tool in tools[:1]:
        version = f" {tool['Version']}" if tool.get("Version") else ""
        known = str(tool.get("Name", "")).lower() == "fmriprep"
        cited = f" {cite('fMRIPrep')}" if known else ""
        before = f" BOLD runs preprocessed with {tool.get('Name')}{version}{cited}"
    software = str(sidecar.get("SoftwareVersion", "bids_roi"))
    text = (
        f"Regional signals were extracted with {software} from"
        f"{before or ' preprocessed BOLD runs'}."
    )
    if not sidecar:
        return text
    mask = sidecar.get("Mask")
    where = {"auto": "inside the run's brain mask, ", "none": ""}.get(
        str(mask), f"inside the mask {mask}, "
    )
    if fwhm := sidecar.get("SmoothingFWHM"):
        text += (
            " Every volume was first smoothed with a Gaussian kernel of"
            f" {fwhm:g} mm full width at half maximum."
        )
    nouns = list(dict.fromkeys(f"the {_statistic(each)}" for each in sidecars))
    places, reference = "voxels", sidecar.get("SpatialReference")
    if isinstance(reference, dict):  # of surfaces, and of grayordinates with a volume
        mixed = "VolumeReference" in reference
        places = "voxels or vertices" if mixed else "vertices"
    text += (
        f" For each region and volume {_enumerate(nouns)}"
        f" {'was' if len(nouns) == 1 else 'were'} taken over the {places} that were"
        f" {where}finite and inside the field of view in every volume, and not"
        " constant."
    )
    if any("StatisticNote" in each for each in sidecars):
        text += (
            " For the eigenvariate each voxel was centred before, over the volumes in a"
            f" steady state; scale and sign are those of SPM {cite('Eigenvariate')}."
        )
    if measures := [_MEASURES.get(m, m) for m in sidecar.get("RegionMeasures", ())]:
        text += (
            f" The tables of regions have {_enumerate(measures)} of their {places}"
            " over the volumes in a steady state."
        )
    least = sidecar.get("MinimumCoverage")
    if least is not None:
        text += (
            f" A region of which less than {100 * least:g} % could be used was set to"
            " n/a."
        )
    return text


def _statistic(sidecar: Mapping[str, Any]) -> str:
    what = str(sidecar.get("Statistic", "mean"))
    if {"StatisticParameters", "StatisticNote"} & set(sidecar):
        what = find_statistic(what).words
    return what.replace("_", " ")


def _enumerate(words: Sequence[str]) -> str:
    """Put a comma between words, and "and" before the last.

    >>> _enumerate(["a"]), _enumerate(["a", "b"]), _enumerate(["a", "b", "c"])
    ('a', 'a and b', 'a, b, and c')
    """
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])}, and {words[-1]}"


def _atlas(
    name: str,
    description: Mapping[str, Any],
    n_regions: int | None,
    cite: _Cited,
    *,
    moved: bool,
) -> str:
    title = description.get("Name") or name
    bibtex = str(description.get("BibTeX", ""))
    keys = re.findall(r"@\w+\{([^,\s]+),", bibtex)
    for key, entry in zip(keys, re.split(r"\n(?=@)", bibtex), strict=False):
        cite.bibtex[key] = entry
    # Keys such as Schaefer2018, spelt out.
    spelt = [re.sub(r"^(\D+)(\d{4}).*$", r"\1 et al. \2", key) for key in keys]
    cited = f" ({'; '.join(spelt)})" if keys else ""
    size = f", {count(n_regions, 'region')}" if n_regions else ""
    text = f"Regions were those of {title} ({name}{size}){cited}"
    weighted = "maps brought to the grid of each run by linear interpolation"
    labels = "labels brought to the grid of each run by nearest neighbour"
    how = weighted if "probseg" in str(description.get("Suffix", "")) else labels
    by = ", through the transforms of the preprocessing" if moved else ""
    return f"{text}, its {how}{by}."


def _cleaning(
    strategy: str, sidecars: Sequence[Mapping[str, Any]], cite: _Cited
) -> str:
    sidecar = sidecars[0]
    text = f"Cleaning ({strategy}): {_regression(sidecar, cite)}"
    text += _motion_filter(sidecar)
    # Runs may be too short for a filter, or sampled too slowly for a low-pass.
    filters = Counter(_filtering(each, cite) for each in sidecars)
    for what, n_series in filters.items():
        if len(filters) > 1:
            text += f" In {n_series} of {len(sidecars)} series:"
        text += what or (" No filter was applied." if len(filters) > 1 else "")
    text += _censoring(sidecar, cite)
    scale = sidecar.get("Standardize")
    if scale == "zscore_sample":
        text += " Series were standardised to z-scores."
    elif scale == "psc":
        text += (
            " Series are in percent of their region's mean over the kept volumes before"
            " cleaning."
        )
    return text


def _regression(sidecar: Mapping[str, Any], cite: _Cited) -> str:
    names = [str(name) for name in sidecar.get("ConfoundRegressors", ())]
    main = [name for name in names if name.startswith("high_variance_")]
    own = [name for name in names if ":" in name]
    given = [name for name in names if name not in {*main, *own}]
    parts = []
    if given:
        parts.append(
            f"{count(len(given), 'confound')} of the preprocessing"
            f"{_origins(given, cite)}"
        )
    if main:
        parts.append(
            f"the {count(len(main), 'main component')} of the voxels that vary most"
            f" {cite('CompCor')}"
        )
    if own:
        tables = ", ".join(dict.fromkeys(name.partition(":")[0] for name in own))
        parts.append(f"{count(len(own), 'regressor')} of tables of our own ({tables})")
    text = "no confounds were regressed out"
    if parts:
        text = f"{' and '.join(parts)} were regressed out of the regional series"
    if given:
        text += " (their number may differ between runs)"
    if sidecar.get("Detrend"):
        text += ", together with mean and linear trend"
    return f"{text}."


def _motion_filter(sidecar: Mapping[str, Any]) -> str:
    band = sidecar.get("MotionFilterBand")
    if not isinstance(band, list) or not band:
        return ""
    ends = [f"{f:g}" for f in sorted(band)]
    how = f"a low-pass at {ends[0]} per minute (Gratton et al. 2020"
    doi = "10.1016/j.neuroimage.2020.116866"
    if len(ends) == 2:
        how = f"a notch of {ends[0]} to {ends[1]} per minute (Fair et al. 2020"
        doi = "10.1016/j.neuroimage.2019.116400"
    return (
        f" Breathing was taken out of the six motion parameters beforehand by {how},"
        f" doi:{doi}; order {sidecar.get('MotionFilterOrder')}, in both directions);"
        " their derivatives, their squares and framewise displacement (head radius"
        f" {sidecar.get('HeadRadius', 50):g} mm) were made of what is left."
    )


def _origins(regressors: Sequence[str], cite: _Cited) -> str:
    """Cite where the kinds of confounds come from."""
    joined = " ".join(regressors)
    kinds = []
    if "trans_x_derivative1_power2" in joined:
        kinds.append("36P" if "global_signal" in joined else "24P")
    if "comp_cor" in joined:
        kinds.append("CompCor")
    if "aroma" in joined:
        kinds.append("AROMA")
    return f" {cite(*kinds)}" if kinds else ""


def _filtering(sidecar: Mapping[str, Any], cite: _Cited) -> str:
    filters = sidecar.get("SoftwareFilters")
    if not isinstance(filters, dict) or not filters:
        return ""
    name, settings = next(iter(filters.items()))
    parts = []
    if high := settings.get("High-pass cutoff (Hz)"):
        parts.append(f"above {high:g} Hz")
    if low := settings.get("Low-pass cutoff (Hz)"):
        parts.append(f"below {low:g} Hz")
    kept = " and ".join(parts)
    alike = f" Signals and confounds alike {cite('Lindquist')}"
    if name == "Pass-band fit":
        return (
            f"{alike} were first projected onto the frequencies {kept}: sines and"
            " cosines of the band were fitted to the kept volumes by least squares,"
            " after mean, trend and slower cosines as far as these are not kept."
        )
    if name == "Butterworth":
        order = settings.get("Filter order")
        curve = _CURVES.get(str(settings.get("Interpolation")), "straight lines")
        ends = "cut off"
        if settings.get("Censored ends") == "nearest":
            ends = "set to the nearest kept volume"
            if sidecar.get("DummyScans"):
                ends += " (those before the steady state cut off)"
        trend = ", mean and linear trend taken out" if sidecar.get("Detrend") else ""
        padding = str(settings.get("Padding"))
        return (
            f"{alike} were first filtered, keeping frequencies {kept}: censored volumes"
            f" between kept ones were filled by {curve}, those at the ends {ends}"
            f"{trend}, and a Butterworth filter of order {order} was applied in both"
            f" directions with {padding} padding; then the censored volumes were taken"
            " out."
        )
    if settings.get("Regressors") == "too_short":
        return " The run is too short for slow cosines: no high-pass was applied."
    whose = "of the preprocessing, which hold all of them,"
    if settings.get("Regressors") != "supplied":
        whose = "of the whole run"
    return (
        f" Slow cosines {whose} were among the regressors, keeping frequencies {kept}."
    )


def _censoring(sidecar: Mapping[str, Any], cite: _Cited) -> str:
    limits = []
    if (limit := sidecar.get("FDThreshold")) is not None:
        limits.append(f"framewise displacement above {limit:g} mm {cite('FD')}")
    if (limit := sidecar.get("StdDVARSThreshold")) is not None:
        limits.append(f"standardised DVARS above {limit:g}")
    text = ""
    if limits:
        text = f" Volumes with {' or '.join(limits)} were censored {cite('Scrubbing')}"
        parts = [
            f"{count(n, 'volume')} {side.lower()}"
            for side in ("Before", "After")
            if (n := sidecar.get(f"Censor{side}") or 0)
        ]
        text += f", with {' and '.join(parts)} each of them" if parts else ""
        if scrub := sidecar.get("Scrub"):
            text += (
                f", and stretches of fewer than {count(scrub, 'volume')} between them"
            )
        text += "."
    if dummy := sidecar.get("DummyScans"):
        text += (
            f" {count(dummy, 'volume')} before the steady state went too (their number"
            " may differ between runs)."
        )
    return text + _rows(sidecar) if text else text


def _rows(sidecar: Mapping[str, Any]) -> str:
    """What stands in the series where volumes were censored."""
    done = sidecar.get("CensoredVolumes")
    if done == "na":
        return " In the series censored volumes are n/a."
    if done == "interpolate":
        curve = _CURVES.get(str(sidecar.get("Interpolation")), "straight lines")
        return (
            " In the series censored volumes between kept ones are filled by"
            f" {curve}, those at the ends are n/a."
        )
    return " In the series censored volumes are left out."


def _connectivity(
    relmats: Sequence[Mapping[str, Any]], cite: _Cited, *, several: bool
) -> list[str]:
    texts: dict[str, None] = {}
    for sidecar in relmats:
        measure = str(sidecar.get("RelationshipMeasure", "")) or "connectivity"
        of = f" of the {_statistic(sidecar)}" if several else ""
        if not measure.startswith(("Pearson", "Spearman", "Fisher")):
            measure = measure[:1].lower() + measure[1:]
        text = f"Between regions the {measure}{of} was computed"
        if sidecar.get("PartialEstimator") == "ledoit_wolf":
            text += f" with the covariance shrunk {cite('LedoitWolf')}"
        elif sidecar.get("PartialEstimator"):
            text += " by the pseudo-inverse of the correlation matrix"
        if lags := _LAGS.get(str(sidecar.get("XDFRegularisation"))):
            text += f" {cite('Afyouni')}, with {lags},"
        over = "the kept volumes"
        if (number := sidecar.get("RelmatVolumes")) is not None:
            seed = sidecar.get("RelmatSeed")
            over = f"{number} of {over}, chosen at random (seed {seed})"
        texts[f"{text} over {over}."] = None
    return list(texts)


def _briefly(reference: Mapping[str, Any]) -> str:
    authors = str(reference["Authors"]).split(", ")
    first = authors[0].rpartition(" ")[0]
    more = " et al." if len(authors) > 1 else ""
    return f"{first}{more} {reference['Year']}"


def _finish(paragraphs: Sequence[str], cite: _Cited) -> Methods:
    references = {}
    entries = {}
    for key in cite.keys:
        known = _known()[key]
        text = (
            f"{known['Authors']} ({known['Year']}). {known['Title']}."
            f" {known['Journal']}."
        )
        references[known["Key"]] = (known["Key"], text, known["DOI"])
        entries[known["Key"]] = format_bibtex(known)
    for key, entry in cite.bibtex.items():
        fields = dict(re.findall(r"(\w+) = \{+(.*?)\}+[,}]", entry + ","))
        names = fields.get("author", "").split(" and ")
        authors = ", ".join(name.replace(", ", " ") for name in names)
        text = (
            f"{authors.removesuffix('others') + 'et al.' * authors.endswith('others')}"
            f" ({fields.get('year', '')}). {fields.get('title', '')}."
            f" {fields.get('journal', '')}."
        ).replace("\\&", "&")
        references[key] = (key, text, fields.get("doi", ""))
        entries[key] = entry
    return Methods(
        tuple(paragraphs),
        tuple(references[key] for key in sorted(references)),
        "\n".join(entries[key] for key in sorted(entries)),
    )
