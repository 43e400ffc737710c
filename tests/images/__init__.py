"""Stand-ins for the images that tests, tutorials and benchmarks name, made from Debian packages.

On a connected machine `nginx` or `python:3.11` come from Docker Hub. Where that cannot be reached, or a test
must not depend on it, this package builds images of the same names from Debian's packages and serves them
from a real Distribution registry (Debian's `docker-registry`) on loopback, which an engine is given as a
mirror of Docker Hub. Every stand-in carries the label `org.dockmagic.stand-in=true`.

    recipes.py   what each stand-in is: one table, add to it
    roots.py     a recipe becomes a directory: one layer's files
    layout.py    directories become an OCI image
    registry.py  the images in a registry; `Registry` is what a test uses

`python -m tests.images` builds what is missing, prints the mirror's URL and serves until its stdin closes.
"""
