"""Serve the stand-ins until stdin closes or SIGTERM comes: `python -m tests.images [--registry-port N]`.

The mirror's URL is the one line on stdout; what is being built is told on stderr.
"""

import argparse
import signal
import sys

from tests.images.registry import Registry, stand_ins


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.images", description=__doc__)
    parser.add_argument("--registry-port", type=int, default=0, metavar="N", help="default: a free one")
    parser.add_argument(
        "--build-only", action="store_true", help="build what is missing, print where it is, end"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.build_only:
        print(stand_ins())
        return
    with Registry(port=options.registry_port) as registry:
        print(registry.mirror_url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
