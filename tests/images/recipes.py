"""The table of stand-ins: what is put into each image and how it runs.

A stand-in follows its namesake where a user would notice: command, entry point, ports, the path of nginx's
pages. What it cannot be is said by its label `org.opencontainers.image.description`.
"""

from dataclasses import dataclass, field
from typing import Any

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Recipe:
    """One stand-in: an image of one layer on top of `base`'s.

    The layer is made from `origin`, the Debian packages `packages`, the script `run`, then `files`.
    """

    name: str
    tags: tuple[str, ...]
    about: str
    base: str | None = None
    origin: str | None = (
        None  # "debian" (mmdebstrap) or "busybox" (the one binary and its names), without a base
    )
    packages: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)  # path -> content; "#!" first makes it executable
    run: str = ""  # a shell script inside the new root
    config: dict[str, Any] = field(default_factory=dict)  # the image's OCI config


_OS_RELEASE = """\
NAME="{0} stand-in"
PRETTY_NAME="Stand-in for {0}, made from Debian's busybox-static"
ID={1}-stand-in
HOME_URL="https://www.busybox.net"
"""

_HELLO = """\
#!/bin/sed 1d

Hello from Docker!
This message shows that your installation appears to be working correctly.

The engine took the image "hello-world" from a registry, made a container of it, ran the
program in it and sent you its output. To try something more ambitious, run a shell:
 $ docker run -it busybox sh

(This is dockmagic's stand-in for Docker's hello-world image.)

"""

_NGINX_ENTRYPOINT = """\
#!/bin/sh
# Runs what is mounted in /docker-entrypoint.d, then the command, as the nginx image does.
set -e
for script in /docker-entrypoint.d/*.sh; do
    [ -x "$script" ] && "$script"
done
echo "$0: Configuration complete; ready for start up"
exec "$@"
"""

_NGINX_SITE = """\
server {
    listen 80;
    listen [::]:80;
    server_name localhost;

    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
"""

_NGINX_PAGE = """\
<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body>
<h1>Welcome to nginx!</h1>
<p>If you see this page, nginx is serving it from inside a container.</p>
</body>
</html>
"""

_POSTGRES_ENTRYPOINT = """\
#!/bin/sh
# Makes the database on the first start, as the postgres image does, then runs the server as its user.
set -e
if [ "$1" != postgres ]; then exec "$@"; fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "$POSTGRES_PASSWORD" ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        echo "       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser." >&2
        exit 1
    fi
    user="${POSTGRES_USER:-postgres}"
    chown postgres: "$PGDATA"
    chmod 700 "$PGDATA"
    echo "$POSTGRES_PASSWORD" >/tmp/password
    chown postgres: /tmp/password
    setpriv --reuid postgres --regid postgres --init-groups \\
        initdb --username="$user" --pwfile=/tmp/password --auth-host=scram-sha-256 >/dev/null
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    if [ "${POSTGRES_DB:-$user}" != postgres ]; then
        echo "CREATE DATABASE \\"${POSTGRES_DB:-$user}\\"" | setpriv --reuid postgres --regid postgres \\
            --init-groups postgres --single -j postgres >/dev/null
    fi
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@" -c "listen_addresses=*"
"""

_MYSQL_ENTRYPOINT = """\
#!/bin/sh
# Makes the database on the first start, as the mysql image does, then runs the server as its user.
set -e
if [ "$1" != mysqld ]; then exec "$@"; fi
shift
data=/var/lib/mysql
if [ ! -d "$data/mysql" ]; then
    if [ -z "$MYSQL_ROOT_PASSWORD" ]; then
        echo "[ERROR] [Entrypoint]: Database is uninitialized and password option is not specified" >&2
        echo "    You need to specify MYSQL_ROOT_PASSWORD as an environment variable" >&2
        exit 1
    fi
    chown mysql: "$data"
    chmod 700 "$data"
    mariadb-install-db --user=mysql --datadir="$data" --auth-root-authentication-method=normal \\
        --skip-test-db >/dev/null
    {
        echo "ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "CREATE USER root@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
        if [ -n "$MYSQL_DATABASE" ]; then echo "CREATE DATABASE $MYSQL_DATABASE;"; fi
    } >/tmp/first.sql
    set -- --init-file=/tmp/first.sql "$@"
fi
exec mariadbd --user=mysql --datadir="$data" --bind-address="*" "$@"
"""

RECIPES = (
    Recipe(
        name="busybox",
        tags=("latest", "1.35"),
        about="Debian's busybox-static",
        origin="busybox",
        config={"Cmd": ["sh"], "Env": [PATH]},
    ),
    Recipe(
        name="alpine",
        tags=("latest", "3"),
        about="busybox-static laid out like Alpine Linux; there is no apk and no musl",
        origin="busybox",
        files={"/etc/os-release": _OS_RELEASE.format("Alpine Linux", "alpine")},
        config={"Cmd": ["/bin/sh"], "Env": [PATH]},
    ),
    Recipe(
        name="hello-world",
        tags=("latest",),
        about="a script for busybox's sed that prints itself",
        origin="busybox",
        files={"/hello": _HELLO},
        config={"Cmd": ["/hello"], "Env": [PATH]},
    ),
    Recipe(
        name="debian",
        tags=("bookworm", "bookworm-slim", "latest", "12", "12-slim", "stable-slim"),
        about="Debian 12's essential packages and apt, without documentation and translations",
        origin="debian",
        # As in Debian's own image: installing a server in a container does not start it.
        files={"/usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n", "/etc/resolv.conf": ""},
        config={"Cmd": ["bash"], "Env": [PATH]},
    ),
    Recipe(
        name="nginx",
        tags=("latest", "1.22", "stable"),
        about="Debian's nginx-light on the debian stand-in",
        base="debian",
        packages=("nginx-light",),
        files={
            "/docker-entrypoint.sh": _NGINX_ENTRYPOINT,
            "/etc/nginx/conf.d/default.conf": _NGINX_SITE,
            "/usr/share/nginx/html/index.html": _NGINX_PAGE,
        },
        run="""
            rm /etc/nginx/sites-enabled/default
            mkdir /docker-entrypoint.d
            ln -sf /dev/stdout /var/log/nginx/access.log
            ln -sf /dev/stderr /var/log/nginx/error.log
        """,
        config={
            "Entrypoint": ["/docker-entrypoint.sh"],
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": [PATH, "NGINX_VERSION=1.22.1"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        },
    ),
    Recipe(
        name="python",
        tags=("3.11", "3.11-slim", "3.11-slim-bookworm", "3", "latest", "slim"),
        about="Debian's python3.11 and pip on the debian stand-in",
        base="debian",
        packages=("python3", "python3-pip"),
        run="""
            ln -s /usr/bin/python3 /usr/local/bin/python
            rm /usr/lib/python3.11/EXTERNALLY-MANAGED
        """,
        config={"Cmd": ["python3"], "Env": [PATH, "LANG=C.UTF-8", "PYTHON_VERSION=3.11.2"]},
    ),
    Recipe(
        name="postgres",
        tags=("latest", "15"),
        about="Debian's postgresql on the debian stand-in",
        base="debian",
        packages=("postgresql",),
        files={"/usr/local/bin/docker-entrypoint.sh": _POSTGRES_ENTRYPOINT},
        run="""
            rm -rf /var/lib/postgresql/15
            mkdir -p /var/lib/postgresql/data /docker-entrypoint-initdb.d
            chown postgres: /var/lib/postgresql/data
        """,
        config={
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "Env": [
                PATH + ":/usr/lib/postgresql/15/bin",
                "LANG=C.UTF-8",
                "PG_MAJOR=15",
                "PGDATA=/var/lib/postgresql/data",
            ],
            "ExposedPorts": {"5432/tcp": {}},
            "StopSignal": "SIGINT",
            "Volumes": {"/var/lib/postgresql/data": {}},
        },
    ),
    Recipe(
        name="redis",
        tags=("latest", "7"),
        about="Debian's redis-server on the debian stand-in",
        base="debian",
        packages=("redis-server",),
        run="mkdir -p /data && chown redis: /data",
        config={
            "Cmd": ["redis-server", "--bind", "*", "--protected-mode", "no"],
            "Env": [PATH],
            "ExposedPorts": {"6379/tcp": {}},
            "User": "redis",
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
    ),
    Recipe(
        name="mysql",
        tags=("latest", "8"),
        about="Debian's mariadb-server on the debian stand-in",
        base="debian",
        packages=("mariadb-server",),
        files={"/usr/local/bin/docker-entrypoint.sh": _MYSQL_ENTRYPOINT},
        run="""
            rm -rf /var/lib/mysql
            mkdir -p /var/lib/mysql /run/mysqld
            chown mysql: /var/lib/mysql /run/mysqld
        """,
        config={
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["mysqld"],
            "Env": [PATH],
            "ExposedPorts": {"3306/tcp": {}},
            "Volumes": {"/var/lib/mysql": {}},
        },
    ),
)
