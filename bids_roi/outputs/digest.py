"""Hashes that tell whether two outputs were made in the same way."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bids_roi.version import __version__

if TYPE_CHECKING:
    from bids_roi.atlases.open import Atlas


@dataclass(frozen=True, slots=True)
class Digests:
    """Hashes of all that decides the numbers but the BOLD file; 12 digits each.

    Outputs that differ in ``options`` are never mixed. ``settings`` is without what
    each participant has files of their own of: the atlas image, transforms, surfaces.
    """

    options: str
    settings: str

    def describe(self) -> dict[str, str]:
        """Sidecar keys."""
        return {"OptionsDigest": self.options, "SettingsDigest": self.settings}


# Outputs of two releases are told apart, those of two commits on the way to one are
# not: else nothing would go on where it stopped after a commit. Sidecars say which.
def release_of(version: str) -> str:
    """Release that a version belongs to.

    >>> release_of("1.2.0.dev45"), release_of("1.2.0")
    ('1.2.0.dev', '1.2.0')
    """
    return re.sub(r"\.dev\d+$", ".dev", version)


def digest_outputs(options: str, atlas: Atlas, *more: object) -> Digests:
    """Hash all that decides the numbers but the BOLD file.

    ``options`` is the digest of those, ``more`` is what is done to it after
    extraction, in plain JSON values.
    """
    settings: list[Any] = [
        release_of(__version__),
        options,
        atlas.table_digest,
        list(atlas.regions.name),
        *more,
    ]
    own = [atlas.image_digest]
    if atlas.route is not None:
        if not atlas.individual:
            settings += own
        own = [*own, atlas.route.digest]
    if atlas.areas is not None:
        if atlas.areas.individual:
            own = [*own, atlas.areas.digest]
            settings.append("areas of the participant")
        else:
            settings.append(f"areas {atlas.areas.digest}")
    return Digests(_hash([*own, *settings]), _hash(settings))


def digest_condition(relmat: str, condition: str, shift: float) -> str:
    """Digest of the matrix of a condition, from that of the matrix of the whole run."""
    return _hash([relmat, condition, shift])


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
