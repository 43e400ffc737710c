"""What containers, networks, endpoints and build steps are called by: 64 hexadecimal digits, at random.

The first 12 are also the host name of a container, so they are never decimal digits alone: gethostbyname(3)
takes such a name for an address that it can't read, and finds it in no /etc/hosts.
"""

import secrets


def new() -> str:
    while (identifier := secrets.token_hex(32))[:12].isdecimal():
        pass
    return identifier
