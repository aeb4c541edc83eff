"""The panel and its API: the same functions as the command line, over HTTP. Needs the extra `web`; only `archisync web` imports it."""
