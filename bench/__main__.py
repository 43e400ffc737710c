"""`make bench`: measure and print one table. Options: --help.

Exit code 0 whether targets are met or not: the table says so.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench import buildah, buildkit, containers, images, networks, reading
from bench.engines import Engine, both, connect, pull
from bench.table import Row, table
from tests.images.registry import Registry

# What can be asked for by name: rows of the two engines, from an image and a number of repetitions.
SECTIONS: dict[str, Callable[[tuple[Engine, Engine], str, int], list[Row]]] = {
    "containers": containers.rows,
    "reading": reading.rows,
    "networks": networks.rows,
    "images": images.rows,
    "buildah": buildah.rows,
    "buildkit": buildkit.rows,
}
_STARTS = "starts"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Our engine beside Docker's.")
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}, {_STARTS}; all"
    )
    parser.add_argument("--times", type=int, default=20, help="repetitions on each engine (%(default)s)")
    parser.add_argument("--ours", type=Path, metavar="SOCKET", help="use this engine as ours; start none")
    parser.add_argument("--docker", type=Path, metavar="SOCKET", help="use this engine as Docker's")
    options = parser.parse_args()
    wanted = options.sections or [*SECTIONS, _STARTS]
    if unknown := [name for name in wanted if name not in (*SECTIONS, _STARTS)]:
        parser.error(f"no section {unknown[0]!r}: there are {', '.join(SECTIONS)} and {_STARTS}")
    image, rows = "dockmagic-bench-busybox", []
    with Registry() as registry:
        with both(options.ours, options.docker) as engines:
            for engine in engines:
                version = engine.api.version()
                print(f"{engine.name}: {version.get('Version')} on {engine.socket}", file=sys.stderr)
                pull(engine.api, registry.mirror_url, image)
            try:
                for name in wanted:
                    if name in SECTIONS:
                        rows += SECTIONS[name](engines, image, options.times)
            finally:
                for path in {engine.socket for engine in engines}:
                    connect(path).remove_image(image)
        if _STARTS in wanted and options.ours is None:
            rows += containers.starts(registry.mirror_url, times=3)
    print(table(rows))
    print(
        "\nCounted: memory is Private_* and swap (smaps_rollup) of the parent of each container's first"
        "\nprocess; processor use is that of the engine, its descendants and those parents; docker-py alone"
        "\nis the same calls to an aiohttp server that does nothing."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
