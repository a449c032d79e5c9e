"""Tables of confounds and strategies: which columns, which volumes."""
