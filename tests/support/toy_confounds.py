"""A table of confounds for the toy runs, as fMRIPrep would write it."""

import numpy as np

T = 60
MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
SPIKES = [20, 21, 40]  # volumes 20 and 39 would mirror; 40 and 19 do not matter


def write_confounds(root, seed=0, n_volumes=T):
    """A table as fMRIPrep's: full 24P, tissues, cosines, FD and DVARS, one dummy."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name in [*MOTION, "csf", "white_matter", "global_signal"]:
        values = rng.normal(size=n_volumes).cumsum()
        slope = np.r_[np.nan, np.diff(values)]
        columns |= {
            name: values,
            f"{name}_derivative1": slope,
            f"{name}_power2": values**2,
            f"{name}_derivative1_power2": slope**2,
        }
    for k in range(2):
        phase = np.pi * (k + 1) * (np.arange(n_volumes) + 0.5) / n_volumes
        columns[f"cosine0{k}"] = np.cos(phase)
    fd = np.full(n_volumes, 0.1)
    fd[0] = np.nan
    fd[[v for v in SPIKES if v < n_volumes]] = 0.9
    dvars = np.ones(n_volumes)
    dvars[0] = np.nan
    columns |= {"framewise_displacement": fd, "std_dvars": dvars}
    steady = np.zeros(n_volumes)
    steady[0] = 1
    columns["non_steady_state_outlier00"] = steady
    rows = [
        "\t".join("n/a" if np.isnan(v) else repr(float(v)) for v in row)
        for row in zip(*columns.values(), strict=True)
    ]
    stem = "sub-01_task-rest_desc-confounds_timeseries"
    path = root / "sub-01" / "func" / f"{stem}.tsv"
    path.write_text("\n".join(["\t".join(columns), *rows]) + "\n")
    path.with_suffix(".json").write_text("{}")
    return columns
