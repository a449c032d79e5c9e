"""A small dataset that looks and behaves like fMRIPrep's."""
