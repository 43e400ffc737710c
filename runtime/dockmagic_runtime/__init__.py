"""dockmagic-runtime: a container engine in Python on Linux kernel facilities.

The folders are its nouns, each importing only from those before it in this list:
kernel, oci, storage, registry, process, images, networks, volumes, containers, build, api.
"""

__version__ = "0.1.0"
