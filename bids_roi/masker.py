"""The app's extraction with the methods of a scikit-learn transformer.

scikit-learn is no requirement: what it asks of an estimator is written out here, and it
is imported only where it calls.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_roi.api import extract_run
from bids_roi.arguments import ALLOWED, read_value, say
from bids_roi.asked import Call, Desk, Work, list_given, open_desk, share
from bids_roi.core.grid import resample_labels
from bids_roi.errors import BidsRoiError, UsageError, nearest_words
from bids_roi.images.nifti import make_image, read_labels
from bids_roi.participant.plan import plan_run

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bids_roi.atlases.open import Atlas
    from bids_roi.images.nifti import Series

__all__ = ["RegionMasker"]

# Parameters that are options of another name.
_OPTIONS = {"t_r": "repetition_time", "strategy": "statistic"}
# As nilearn's clean has them; passband and cosine know none of these.
_BUTTERWORTH = {"filter_padding": "odd", "interpolation": "cubic_spline"}


class RegionMasker:
    """Transformer from BOLD images to regional signals, in nilearn's words.

    It takes the place of ``nilearn.maskers.NiftiLabelsMasker``; docs/api.md says where
    the numbers are the same, and where not. Signals come from the engine of the app.

    Parameters
    ----------
    labels_img : str, path or nibabel image
        Atlas: a name (``"schaefer400"``), a label image, or 4D maps.
    lut : path or DataFrame
        Table of the regions, with the columns index and name.
    mask_img : {"auto"}, path or nibabel image
        Voxels outside are not used. ``"auto"`` takes the mask beside each image; None
        all voxels.
    smoothing_fwhm : float, mm
        Full width at half maximum of a Gaussian; None for none.
    standardize : bool or {"zscore_sample", "psc"}
        True is ``"zscore_sample"``.
    standardize_confounds : bool
        Give each confound mean 0 and standard deviation 1.
    high_variance_confounds : bool
        Regress out the components of the voxels that vary most.
    detrend : bool
        Take out mean and linear trend.
    low_pass, high_pass : float, Hz
        Cut-offs of the filter; None for off.
    t_r : float, s
        Repetition time; None for that of the sidecar or header.
    strategy : str
        Statistic over the voxels of a region: ``"mean"``, ``"median"``, ``"sum"``,
        ``"minimum"``, ``"maximum"``, ``"standard_deviation"`` or ``"variance"``.
    cleaning : str or path
        Strategy of cleaning (``"36P"``), which chooses among the columns of the
        confounds beside each image, or of those given to ``transform``.
    filter : {"butterworth", "cosine", "passband"}
        Kind of filter; ``"passband"`` is the default of the app.
    min_coverage : float, 0 to 1
        A region of which less can be used is NaN.
    space : str
        Template of images whose names do not tell it; for atlases by name.
    templateflow_home : path
        Folder that holds atlases.

    Attributes
    ----------
    region_names_ : list of str
        Names of the columns.
    region_values_ : list of int
        Their values in the label image, or numbers of the maps.
    n_elements_ : int
        How many there are.

    See Also
    --------
    bids_roi.extract : the same with coverage, warnings and matrices.

    Examples
    --------
    >>> import nibabel as nb, numpy as np
    >>> labels = np.zeros((4, 4, 4), np.int16)
    >>> labels[:2] = 1
    >>> labels[2:] = 2
    >>> bold = nb.Nifti1Image(np.arange(5.0) * labels[..., None], np.eye(4))
    >>> masker = RegionMasker(nb.Nifti1Image(labels, np.eye(4)))
    >>> masker.fit_transform(bold)[-1]
    array([4., 8.])
    >>> masker.get_feature_names_out()
    array(['region_1', 'region_2'], dtype=object)
    """

    region_names_: list[str]
    region_values_: list[int]
    n_elements_: int

    def __init__(
        self,
        labels_img: Any = None,  # noqa: ANN401 - a name, path or nibabel image
        *,
        lut: Any = None,  # noqa: ANN401 - a path or DataFrame
        mask_img: Any = None,  # noqa: ANN401 - a path or nibabel image
        smoothing_fwhm: float | None = None,
        standardize: bool | str = False,
        standardize_confounds: bool = True,
        high_variance_confounds: bool = False,
        detrend: bool = False,
        low_pass: float | None = None,
        high_pass: float | None = None,
        t_r: float | None = None,
        strategy: str = "mean",
        cleaning: str | Path | None = None,
        filter: str = "butterworth",  # noqa: A002 - the word of the option
        min_coverage: float = 0.5,
        space: str | None = None,
        templateflow_home: str | Path | None = None,
    ) -> None:
        self.labels_img = labels_img
        self.lut = lut
        self.mask_img = mask_img
        self.smoothing_fwhm = smoothing_fwhm
        self.standardize = standardize
        self.standardize_confounds = standardize_confounds
        self.high_variance_confounds = high_variance_confounds
        self.detrend = detrend
        self.low_pass = low_pass
        self.high_pass = high_pass
        self.t_r = t_r
        self.strategy = strategy
        self.cleaning = cleaning
        self.filter = filter
        self.min_coverage = min_coverage
        self.space = space
        self.templateflow_home = templateflow_home

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 - of the protocol
        """Get the parameters by name.

        Parameters
        ----------
        deep
            Of no effect: no parameter has parameters of its own.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> RegionMasker:  # noqa: ANN401 - any parameter
        """Set parameters by name.

        Parameters
        ----------
        **params
            As those of the class.

        Returns
        -------
        RegionMasker
            This one.

        Raises
        ------
        UsageError
            If there is no such parameter.
        """
        for name in params:
            if name not in _PARAMETERS:
                near = ", ".join(nearest_words(name, _PARAMETERS))
                hint = f"Nearest: {near}. " if near else ""
                remedy = f"{hint}It has {', '.join(_PARAMETERS)}."
                raise _WrongParameter(f"there is no parameter {name}.", remedy=remedy)
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, imgs: Any = None, y: Any = None) -> RegionMasker:  # noqa: ANN401, ARG002 - images; y is of the protocol
        """Find the regions, and check the parameters; no volume is read.

        Parameters
        ----------
        imgs : path, nibabel image, or list of these
            Of the first the header is read. An atlas that is an image needs none.
        y
            Of no effect.

        Returns
        -------
        RegionMasker
            This one.

        Raises
        ------
        BidsRoiError
            If a parameter is wrong, or the atlas does not fit the image.
        """
        with open_desk() as desk:
            call = self._call(desk)
            if imgs is None:
                atlas, series = self._open_alone(call), None
            else:
                first = next(iter(list_given(imgs, "imgs").values()))
                atlas, series = _open_for(call, self._prepare(call, 0, first))
            self._labels = None if not atlas.hard else _paint(atlas, series)
        self.region_names_ = list(atlas.regions.name)
        self.region_values_ = [int(value) for value in atlas.regions.index]
        self.n_elements_ = len(self.region_names_)
        return self

    def transform(
        self,
        imgs: Any,  # noqa: ANN401 - images
        confounds: Any = None,  # noqa: ANN401 - tables
        sample_mask: Any = None,  # noqa: ANN401 - arrays
    ) -> Any:  # noqa: ANN401 - an array, a DataFrame, or a list of these
        """Extract the signals of the regions.

        Parameters
        ----------
        imgs : path, 4D nibabel image, or list of these
            BOLD series.
        confounds : path, DataFrame or array (T, C); of several images, a list
            Regressed out as a whole, or as ``cleaning`` says.
        sample_mask : (n_kept,) int or (T,) bool; of several images, a list
            Volumes to keep.

        Returns
        -------
        signals : (n_kept, R)
            NaN in the columns of lost regions; a list of these for a list of images. A
            DataFrame after ``set_output(transform="pandas")``.

        Raises
        ------
        BidsRoiError
            If an image cannot be used, or has other regions than were fitted.
        """
        self._check_fitted()
        several = isinstance(imgs, list | tuple)
        with open_desk() as desk:
            call = self._call(desk)
            given = list_given(imgs, "imgs")
            tables = share(confounds, given, "confounds", each=True)
            if not several and np.ndim(sample_mask) == 1:
                masks = {0: sample_mask}
            else:
                masks = share(sample_mask, given, "sample_mask", each=True)
            found = [
                self._extract(call, key, item, tables[key], masks[key])
                for key, item in given.items()
            ]
        return found if several else found[0]

    def fit_transform(
        self,
        imgs: Any,  # noqa: ANN401 - images
        y: Any = None,  # noqa: ANN401 - of the protocol
        confounds: Any = None,  # noqa: ANN401 - tables
        sample_mask: Any = None,  # noqa: ANN401 - arrays
    ) -> Any:  # noqa: ANN401 - as transform
        """Fit, and extract the signals of the regions.

        Parameters
        ----------
        imgs, confounds, sample_mask
            See ``transform``.
        y
            Of no effect.

        Returns
        -------
        signals : (n_kept, R)
            See ``transform``.
        """
        return self.fit(imgs, y).transform(imgs, confounds, sample_mask)

    def inverse_transform(self, signals: ArrayLike) -> Any:  # noqa: ANN401 - an image
        """Paint signals into the regions of a label image.

        Parameters
        ----------
        signals : (T, R) or (R,)
            One column per region.

        Returns
        -------
        nibabel.Nifti1Image
            (x, y, z, T) or (x, y, z), on the grid of the image that was fitted, or that
            of the atlas; 0 where there is no region.

        Raises
        ------
        UsageError
            If the atlas is no label image in the space of the images, or the signals do
            not have its regions.
        """
        self._check_fitted()
        if self._labels is None:
            msg = "signals can be painted into label images only."
            raise UsageError(
                msg, remedy="Maps, surfaces and transforms have no inverse."
            )
        columns = np.asarray(signals, dtype=float)
        if columns.ndim not in (1, 2) or columns.shape[-1] != self.n_elements_:
            msg = f"signals have shape {columns.shape}, not (T, {self.n_elements_})."
            raise UsageError(msg, remedy="Give one column per region.")
        labels, affine = self._labels
        order = np.argsort(self.region_values_)
        values = np.array(self.region_values_)[order]
        place = np.searchsorted(values, labels).clip(max=len(values) - 1)
        inside = values[place] == labels
        image = np.zeros((*labels.shape, *columns.shape[:-1]))
        image[inside] = columns.T[order][place[inside]]
        return make_image(image, affine)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ANN401, ARG002 - of the protocol
        """Get the names of the columns.

        Parameters
        ----------
        input_features
            Of no effect.

        Returns
        -------
        names : (R,) object
        """
        self._check_fitted()
        return np.array(self.region_names_, dtype=object)

    def set_output(self, *, transform: str | None = None) -> RegionMasker:
        """Choose what ``transform`` returns.

        Parameters
        ----------
        transform : {"default", "pandas"}
            Arrays, or DataFrames whose index is the number of the volume in the run;
            None for no change.

        Returns
        -------
        RegionMasker
            This one.
        """
        if transform not in (None, "default", "pandas"):
            msg = f"transform is 'default' or 'pandas', not {say(transform)}."
            raise _WrongParameter(msg)
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - of scikit-learn
        """Say what it takes, as scikit-learn asks."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="transformer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(two_d_array=False, allow_nan=True),
            no_validation=True,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_elements_")

    def _check_fitted(self) -> None:
        """Refuse a call before ``fit``; scikit-learn has an error for that."""
        if self.__sklearn_is_fitted__():
            return
        kind: Any = UsageError
        if sys.modules.get("sklearn") is not None:
            from sklearn.exceptions import NotFittedError

            kind = type("NotFitted", (UsageError, NotFittedError), {})
        raise kind("this RegionMasker is not fitted yet.", remedy="Call fit first.")

    def __repr__(self) -> str:
        changed = [
            f"{name}={say(value)}"
            for name, value in self.get_params().items()
            if value is not _PARAMETERS[name].default
        ]
        return f"RegionMasker({', '.join(changed)})"

    def _call(self, desk: Desk) -> Call:
        """The parameters, checked, as a call of ``extract``."""
        given: dict[str, Any] = {}
        for name in _PARAMETERS:
            option = ALLOWED.get(_OPTIONS.get(name, name))
            value = getattr(self, name)
            if option is None or value is None:
                continue
            if name == "standardize" and isinstance(value, bool | np.bool_):
                value = "zscore_sample" if value else "none"
            try:
                given[option.name] = read_value(option, value)
            except UsageError as error:
                hint = " Strategies of cleaning go to cleaning=."
                remedy = error.remedy + (hint if name == "strategy" else "")
                problem = error.problem.replace(option.name, name, 1)
                raise _WrongParameter(problem, remedy=remedy.strip()) from None
        if self.high_pass is None and self.low_pass is None:
            given.pop("filter", None)
        elif given.get("filter") == "butterworth":
            given |= _BUTTERWORTH
        if given.get("standardize") == "none":
            del given["standardize"]
        plain: object = self.standardize_confounds
        if not isinstance(plain, bool | np.bool_):
            told = say(plain)
            raise _WrongParameter(
                f"standardize_confounds is True or False, not {told}."
            )
        cleaning: object = self.cleaning
        if cleaning is not None and not isinstance(cleaning, str | Path):
            msg = f"cleaning is a name or path, not {say(cleaning)}."
            raise _WrongParameter(msg)
        call = Call(desk, given, self.space)
        call.plain_confounds = not self.standardize_confounds
        call.add_atlases(list_given(self.labels_img, "labels_img"), self.lut)
        return call

    def _prepare(
        self,
        call: Call,
        key: object,
        item: object,
        confounds: object = None,
    ) -> Work:
        mask = "none" if self.mask_img is None else self.mask_img
        cleaning = () if self.cleaning is None else (str(self.cleaning),)
        work = call.prepare(
            key, item, mask=mask, confounds=confounds, strategies=cleaning
        )
        if work.error is not None:
            raise work.error
        return work

    def _open_alone(self, call: Call) -> Atlas:
        """The atlas, where no image tells the space and the resolution."""
        found = call.open_given()
        if not found:
            msg = "fit needs imgs where labels_img is the name of an atlas."
            remedy = "Its space and resolution are those of the images."
            raise UsageError(msg, remedy=remedy)
        return found[0]

    def _extract(
        self,
        call: Call,
        key: Any,  # noqa: ANN401 - a position
        item: Any,  # noqa: ANN401 - an image
        confounds: Any,  # noqa: ANN401 - a table
        sample_mask: Any,  # noqa: ANN401 - an array
    ) -> Any:  # noqa: ANN401 - an array or a DataFrame
        work = self._prepare(call, key, item, confounds)
        labels = tuple(None if s is None else s.label for s in work.strategies)
        keep = None if sample_mask is None else _read_sample_mask(sample_mask)
        (found,) = extract_run(work, call.shelf(work), labels, keep).values()
        if isinstance(found, BidsRoiError):
            raise found
        signals = found.signals
        if list(signals) != self.region_names_:
            msg = "the regions are other ones than those that were fitted."
            raise UsageError(msg, where=work.run and work.run.path, remedy="Fit anew.")
        own = getattr(self, "_sklearn_output_config", {}).get("transform")
        if own is None and (module := sys.modules.get("sklearn")):
            own = module.get_config()["transform_output"]
        return signals if own == "pandas" else signals.to_numpy()


_PARAMETERS = {
    name: parameter
    for name, parameter in inspect.signature(RegionMasker.__init__).parameters.items()
    if name != "self"
}


class _WrongParameter(UsageError, ValueError):
    """A parameter that cannot be; scikit-learn expects ``ValueError``."""


def _read_sample_mask(value: Any) -> NDArray[Any]:  # noqa: ANN401 - what is given
    """Numbers of the volumes to keep, or whether each is kept."""
    mask = np.asarray(value)
    if mask.ndim != 1 or mask.dtype.kind not in "iub" or not mask.size:
        msg = f"sample_mask is positions of volumes or booleans, not {say(value)}."
        raise UsageError(msg)
    return mask


def _open_for(call: Call, work: Work) -> tuple[Atlas, Series]:
    """The atlas as it is for a run, and the run's header."""
    assert work.run is not None  # noqa: S101 - else it had an error
    planned = plan_run(work.run, work.asking(), call.shelf(work), (None,))
    why = planned.error or next((error for _, error in planned.refused), None)
    if why is not None:
        raise why
    if not planned.atlases or planned.image is None:
        raise UsageError("the atlas is not for runs of this kind.")
    return planned.atlases[0][0], planned.image


def _paint(
    atlas: Atlas, series: Series | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Labels on the grid of a run, or their own; ``None`` where no volume has them."""
    on_surface = series is not None and series.grid is None
    if on_surface or atlas.route is not None or ".nii" not in atlas.image_path.name:
        return None
    if atlas.image_path.name.endswith(".dlabel.nii"):
        return None
    labels, grid = read_labels(atlas.image_path)
    if series is not None and series.grid is not None:
        labels, grid = resample_labels(labels, grid, series.grid), series.grid
    return labels, grid.matrix
