"""The entry point of mc-webgate.service.

Patches the standard library for gevent before anything of it is used, and only then imports the
rest. What the gateway does begins in `server.serve`.
"""

from __future__ import annotations

from gevent import monkey


def main() -> None:
    """Runs until SIGTERM."""
    monkey.patch_all()
    from webgate.server import serve  # noqa: PLC0415  # sockets, locks and select come after the patch

    serve()


if __name__ == "__main__":
    main()
