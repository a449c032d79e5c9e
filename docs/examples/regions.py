# %% [markdown]
# # Signals of regions
#
# nilearn's example of its `NiftiLabelsMasker` (atlas, report, signals, a plot of three
# regions), with bids_roi and its demo. Every cell was run as it stands; the file is
# `docs/examples/regions.py`.
#
# ## Data
#
# `bids_roi_tools demo` writes a small dataset as fMRIPrep would, and runs both levels
# on it.

# %%
import subprocess
from pathlib import Path

subprocess.run(["bids_roi_tools", "demo", "demo"], check=True, capture_output=True)
fmriprep = Path("demo/dataset/fmriprep")
run = next(fmriprep.glob("sub-01/ses-1/func/*_run-1_*res-2_desc-preproc_bold.nii.gz"))
run.name

# %% [markdown]
# ## Atlas
#
# An atlas by name is looked for in TemplateFlow; that of the demo lies beside its data.
# A label image of your own goes in its place, as a path or as a nibabel image, with its
# table.

# %%
import nibabel as nb
import pandas as pd

folder = Path("demo/dataset/atlas/tpl-MNI152NLin2009cAsym")
atlas = nb.load(next(folder.glob("*_atlas-Demo_dseg.nii.gz")))
table = pd.read_csv(next(folder.glob("*_atlas-Demo_dseg.tsv")), sep="\t")
table[["index", "name"]].head()

# %% [markdown]
# ## Report
#
# What nilearn's `generate_report` shows, and more (coverage, carpet, motion, matrices),
# is in the page of each participant.

# %%
sorted(path.name for path in Path("demo/derivatives").glob("*.html"))

# %% [markdown]
# ## Signals
#
# Brain mask, confounds and repetition time are found beside the run.

# %%
import bids_roi

found = bids_roi.extract(
    run, atlas, atlas_table=table, strategy="36P", standardize="zscore_sample"
)
found

# %%
found.regions[["name", "n_voxels_used", "coverage", "status"]].head()

# %% [markdown]
# ## Three regions

# %%
found.plot("LH_Vertex", "RH_Vertex", "LH_Thalamus")

# %% [markdown]
# ## With fit and transform
#
# The same numbers from a transformer with nilearn's parameters, for a scikit-learn
# pipeline.

# %%
masker = bids_roi.RegionMasker(
    atlas, lut=table, mask_img="auto", cleaning="36P", standardize=True
)
signals = masker.fit_transform(run)
bool((signals == found.signals.to_numpy()).all())

# %% [markdown]
# ## Several at once
#
# One pass over each file for all strategies; a mapping comes back.

# %%
runs = sorted(
    fmriprep.glob("sub-0[1-3]/ses-1/func/*_run-1_*res-2_desc-preproc_bold.nii.gz")
)
several = bids_roi.extract(
    {path.name[:6]: path for path in runs},
    {"demo": atlas},
    atlas_table={"demo": table},
    strategy=["none", "36P"],
    relmat="pearson",
)
several

# %%
several["sub-02", "demo", "36P"].relmats["pearson"].iloc[:3, :3].round(3)

# %% [markdown]
# ## What the app has written

# %%
matrices = bids_roi.load("demo/derivatives", space="MNI152NLin2009cAsym").matrices(
    relmat="pearson", strategy="36P"
)
matrices
