"""The files of the output folder: names, sidecars, records, the stack."""
