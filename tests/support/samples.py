"""The sample exports that `archisync demo` copies: `{agent}/{type}.csv`."""

from archisync.standalone.demo import SAMPLES as _ALL

SAMPLES = _ALL / "exports"
