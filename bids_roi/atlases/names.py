"""Names of atlases: canonical, TemplateFlow's, short ones, and of files; citations.

Canonical is ``Schaefer2018_seg-7n_scale-400``: the atlas, then the entities that tell
its variants apart, as they stand in the names of the outputs.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_roi.errors import UsageError, nearest_words
from bids_roi.files.names import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import PurePath


_LABEL = re.compile(r"[A-Za-z0-9+]+")
_PARCELS = re.compile(r"(\d+)Parcels(\d+)Networks", re.IGNORECASE)
_NETWORKS = re.compile(r"(\d+)Networks", re.IGNORECASE)
_DIMENSIONS = re.compile(r"(\d+)dimensions", re.IGNORECASE)

# What files of labels on surfaces and grayordinates end in, and call their sides.
_DENSE = (".dlabel.nii", ".dlabel.nii.gz")
_HEMISPHERE = (".annot", ".gii", ".gii.gz")
_LABEL_ENDS = (".label.gii.gz", ".label.gii", *_HEMISPHERE)
LEFT_SIDE = re.compile(r"(?:^|[._-])(?:lh|hemi-L)(?=[._-])")
RIGHT_SIDE = re.compile(r"(?:^|[._-])(?:rh|hemi-R)(?=[._-])")
GIVE_BOTH = "Write --atlas-file L=LEFT,R=RIGHT[,TABLE]."

# The thresholds of Harvard-Oxford are in per cent; 25 is what FSL and nilearn show.
SHORT_NAMES = {
    "schaefer": "Schaefer2018_seg-7n_scale-400",
    "harvardoxford": "HOCPA_seg-th25",
    "harvardoxford-cort": "HOCPA_seg-th25",
    "harvardoxford-cortl": "HOCPAL_seg-th25",
    "harvardoxford-lateral": "HOCPAL_seg-th25",
    "harvardoxford-sub": "HOSPA_seg-th25",
    "difumo": "DiFuMo_scale-128",
    "massp": "MASSP20",
    "mial67": "MIAL67ThalamicNuclei",
    "thalamus": "MIAL67ThalamicNuclei",
    "suit": "Diedrichsen2009",
    "desikan": "Desikan2006_seg-aparc",
    "destrieux": "Destrieux2009",
    "yeo7": "Yeo2011_seg-7n",
    "yeo17": "Yeo2011_seg-17n",
    "buckner7": "Buckner2011_seg-7n",
    "buckner17": "Buckner2011_seg-17n",
}


@dataclass(frozen=True, slots=True, order=True)
class AtlasKey:
    """What tells one atlas from another."""

    # Its BIDS entities atlas-, seg- and scale-
    label: str
    seg: str | None = None
    scale: str | None = None

    @property
    def name(self) -> str:
        """The canonical id.

        >>> AtlasKey("Schaefer2018", "7n", "400").name
        'Schaefer2018_seg-7n_scale-400'
        """
        pairs = (("seg", self.seg), ("scale", self.scale))
        return "_".join([self.label, *(f"{k}-{v}" for k, v in pairs if v)])


def name_map(key: AtlasKey, map_name: str) -> AtlasKey:
    """Key of one of the maps of an atlas's file, so that two of them have two names.

    >>> name_map(AtlasKey("Yeo2011"), "7 Networks").name
    'Yeo2011_seg-7Networks'
    >>> name_map(AtlasKey("Yeo2011", "7n"), "2").name
    'Yeo2011_seg-7n+map2'
    """
    label = re.sub(r"[^A-Za-z0-9]", "", map_name)
    label = f"map{label}" if not label or label.isdecimal() else label
    return replace(key, seg=f"{key.seg}+{label}" if key.seg else label)


def parse_atlas_name(name: str) -> AtlasKey:
    """Understand the name of an atlas; whether there is one is not looked up.

    Canonical, TemplateFlow's (``Schaefer2018:400Parcels7Networks``) or short
    (``schaefer400x17``, ``harvardoxford-sub``, ``difumo128``, ``4s156``).

    >>> parse_atlas_name("schaefer400x17").name
    'Schaefer2018_seg-17n_scale-400'
    >>> parse_atlas_name("HOCPA:th25").name
    'HOCPA_seg-th25'
    """
    short = name.casefold()
    match = re.fullmatch(r"schaefer(?:2018)?[-_]?(\d{3,4})(?:x(\d+))?", short)
    if match:
        return AtlasKey("Schaefer2018", f"{match[2] or 7}n", match[1])
    match = re.fullmatch(r"difumo[-_]?(\d+)", short)
    if match:
        return AtlasKey("DiFuMo", None, match[1])
    match = re.fullmatch(r"4s[-_]?(\d+)(?:parcels)?", short)
    if match:
        return AtlasKey("4S", None, match[1])
    text = SHORT_NAMES.get(short, name).removeprefix("atlas-")
    label, _, desc = text.partition(":")
    label, *rest = label.split("_")
    pairs = dict(part.partition("-")[::2] for part in rest)
    if desc:
        pairs["desc"] = desc
    sound = _LABEL.fullmatch(label) and all(map(_LABEL.fullmatch, pairs.values()))
    if not sound or set(pairs) - {"seg", "scale", "desc"}:
        msg = f"'{name}' is not the name of an atlas."
        remedy = (
            "Names look like Schaefer2018_seg-7n_scale-400 or schaefer400;"
            " `bids_roi_tools atlases` lists those of TemplateFlow. An image of your"
            " own goes to --atlas-file."
        )
        raise UsageError(msg, remedy=remedy)
    return _key(label, pairs)


def name_of_word(word: str) -> str:
    """Name in the outputs of what a word of ``--atlas`` asks for, there or not.

    >>> name_of_word("schaefer400"), name_of_word("subject:aparc.a2009s")
    ('Schaefer2018_seg-7n_scale-400', 'aparca2009s')
    """
    if word.startswith("subject:"):
        return word.removeprefix("subject:").replace(".", "")
    text, _, chosen = word.partition("#")
    key = parse_atlas_name(text)
    return (name_map(key, chosen) if chosen else key).name


def short_names(key: AtlasKey) -> tuple[str, ...]:
    """Short names of an atlas, none for most; the first is the one that is told.

    >>> short_names(AtlasKey("Schaefer2018", "17n", "400"))
    ('schaefer400x17',)
    >>> short_names(AtlasKey("DiFuMo", None, "128"))
    ('difumo128', 'difumo')
    """
    numbered = {
        "Schaefer2018": f"schaefer{key.scale}" + (f"x{key.seg}"[:-1]).replace("x7", ""),
        "DiFuMo": f"difumo{key.scale}",
        "4S": f"4s{key.scale}",
    }
    own = [numbered[key.label]] if key.label in numbered else []
    return (*own, *(name for name, whole in SHORT_NAMES.items() if whole == key.name))


def _key(label: str, entities: Mapping[str, str]) -> AtlasKey:
    """Key from entities; TemplateFlow's ``desc-`` becomes ``seg-`` and ``scale-``."""
    seg, scale = entities.get("seg"), entities.get("scale")
    desc = entities.get("desc", "")
    networks = _NETWORKS.fullmatch(seg or "")
    if networks:
        seg = f"{networks[1]}n"
    parcels, dimensions = _PARCELS.fullmatch(desc), _DIMENSIONS.fullmatch(desc)
    networks = _NETWORKS.fullmatch(desc)
    if parcels:
        return AtlasKey(label, f"{parcels[2]}n", parcels[1])
    if dimensions:
        return AtlasKey(label, seg, dimensions[1])
    if networks:
        return AtlasKey(label, f"{networks[1]}n", scale)
    if desc:
        seg = f"{seg}+{desc}" if seg else desc
    return AtlasKey(label, seg, scale)


def key_of_file(path: str | PurePath) -> AtlasKey:
    """Key of a file from its name; without ``atlas-`` from all of its stem.

    >>> key_of_file("tpl-X_res-02_atlas-DiFuMo_desc-128dimensions_probseg.nii.gz").name
    'DiFuMo_scale-128'
    >>> key_of_file("my_atlas.nii.gz").name
    'myatlas'
    """
    name = parse_name(path)
    # What is no label of BIDS could not stand in the names of the outputs.
    entities = {k: re.sub(r"[^A-Za-z0-9+]", "", v) for k, v in name.entities}
    if "atlas" in entities:
        return _key(entities["atlas"] or "atlas", entities)
    stem = str(path).replace("\\", "/").rpartition("/")[2].partition(".")[0]
    return AtlasKey(
        re.sub(r"[^A-Za-z0-9]", "", stem) or "atlas",
        entities.get("seg"),
        entities.get("scale"),
    )


def nearest_atlases(name: str, known: Iterable[AtlasKey]) -> list[str]:
    """What is meant by a name of no atlas: short names, then whole ones.

    Those of fMRIPrep's own templates come first, as other species have atlases too.
    """
    keys = list(known)
    short = {word: None for key in keys for word in short_names(key)}
    if near := nearest_words(name, short):
        return near
    label = name.casefold().partition("_")[0]
    variants = [key for key in keys if key.label.casefold() == label]
    if variants:  # of that atlas, but with other numbers
        return [
            short_names(key)[0] if short_names(key) else key.name
            for key in variants[:12]
        ]
    return nearest_words(name, [key.name for key in keys])


def space_of(path: str | PurePath) -> str | None:
    """Space of an atlas file from ``tpl-`` or ``space-``, with its cohort (``X+1``)."""
    entities = dict(parse_name(path).entities)
    space = entities.get("tpl") or entities.get("space")
    if space and "cohort" in entities:
        space = f"{space}+{entities['cohort']}"
    return space


def is_surface(path: Path) -> bool:
    """Whether a file is of labels on surfaces or grayordinates, by its name."""
    return path.name.lower().endswith((*_DENSE, *_HEMISPHERE))


def is_dense(path: Path) -> bool:
    """Whether a file is of labels on grayordinates, by its name."""
    return path.name.lower().endswith(_DENSE)


def side_in_name(path: Path) -> str:
    """``L`` or ``R`` as a file's name tells it (lh, hemi-L), or blank."""
    found = [s for s, p in (("L", LEFT_SIDE), ("R", RIGHT_SIDE)) if p.search(path.name)]
    return found[0] if len(found) == 1 else ""


def without_side(path: Path) -> str:
    """Name of a hemisphere's file as it is of both, for the name of the atlas.

    >>> without_side(Path("lh.aparc.a2009s.annot"))
    'aparc_a2009s.annot'
    """
    name = path.name
    end = next(e for e in (*_LABEL_ENDS, "") if name.lower().endswith(e))
    stem = name[: len(name) - len(end)]
    for pattern in (LEFT_SIDE, RIGHT_SIDE):
        stem = pattern.sub("", stem + ".").removesuffix(".")
    return stem.strip("._-").replace(".", "_") + end


def is_of_one_person(uri: str) -> bool:
    """Whether a BIDS URI is that of a participant's own segmentation or annot."""
    own = uri.startswith("bids:preprocessed:sub-") and uri.endswith("_dseg.nii.gz")
    return own or uri.endswith(".annot")


_DATA = Path(__file__).parents[1] / "data"


@functools.cache
def _citations() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_DATA / "citations.json").read_text("utf-8"))
    return content


def describe_known_atlas(label: str) -> dict[str, Any]:
    """Describe an atlas for ``atlas-<label>_description.json``; empty if not known."""
    known = _citations().get(label)
    if known is None:
        return {}
    references = known["References"]
    content = {
        "Name": known["Name"],
        "License": known["License"],
        "Authors": known["Authors"],
        "ReferencesAndLinks": [f"https://doi.org/{r['DOI']}" for r in references],
        "BibTeX": "\n".join(map(format_bibtex, references)),
    }
    if "RegionTable" in known:
        content["RegionTable"] = known["RegionTable"]
    return content


def format_bibtex(reference: dict[str, Any]) -> str:
    """Entry of BibTeX for a reference with Key, Authors, Title, Journal, Year, DOI."""
    authors = reference["Authors"].replace(", et al.", ", others").split(", ")
    # Family name first, with a comma, or BibTeX takes the initials for it.
    authors = [", ".join(name.rsplit(" ", 1)) for name in authors]
    fields = {
        "author": " and ".join(authors),
        "title": f"{{{reference['Title']}}}",
        "journal": reference["Journal"].replace("&", "\\&"),
        "year": reference["Year"],
        "doi": reference["DOI"],
    }
    body = ", ".join(f"{key} = {{{value}}}" for key, value in fields.items())
    return f"@article{{{reference['Key']}, {body}}}"


def cite_briefly(label: str) -> str:
    """First reference of an atlas as ``Schaefer2018, doi:10.1093/...``, or blank."""
    known = _citations().get(label)
    if known is None:
        return ""
    first = known["References"][0]
    return f"{first['Key']}, doi:{first['DOI']}"


def own_table(label: str) -> Path | None:
    """Region table written for bids_roi, where TemplateFlow's is missing or wrong."""
    path = _DATA / f"atlas-{label}_dseg.tsv"
    return path if path.is_file() else None
