"""One function over many items: here, in processes, on Dask, on SLURM."""
