"""Executors: serial, processes, Dask, SLURM."""
