"""Work of a call, counted in steps of Python, which are the same on all machines."""

import sys


def count_steps(call, *modules):
    """How many bytecode instructions of some modules a call runs."""
    files = {module.__file__ for module in modules}
    n_steps = 0

    def trace(frame, event, _):
        nonlocal n_steps
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        n_steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return n_steps
