"""Our engine beside Docker's: the same docker-py calls to both, interleaved in one run.

    engines.py    the two engines: found or started, and ended again by process id
    workloads.py  what is timed, as one function each
    floor.py      what docker-py alone costs: the same calls to a server that does nothing
    notebook.py   a cold notebook's way from `%load_ext` to the first output
    __main__.py   runs them and prints the table

A ratio compares medians of one run on one machine; absolute times differ from machine to machine.
"""
