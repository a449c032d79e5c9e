"""A derivative with many kinds of series, for what chooses among them."""

import pytest
from support.trees import SERIES, plant


@pytest.fixture
def dataset(tmp_path):
    names = [f"sub-01_{series}_desc-preproc_bold.nii.gz" for series in SERIES]
    names += ["sub-01_ses-1_task-rest_run-01_desc-smooth_bold.nii.gz"]
    return plant(tmp_path / "data", *names)
