"""Packages with source plug-ins, installed into a folder as pip would: a module and a dist-info with its entry points."""

from pathlib import Path

WORKING = """
from archisync.sources.interface import Export
from archisync.sources.spool import spool
import io

class Source:
    def fetch(self, request):
        content = io.BytesIO(request.config.text("ACME_CONTENT").replace("|", "\\n").encode())
        done = spool(content, request, origin="acme:export")
        return Export(path=done.path, origin="acme:export", suffix="", size_bytes=done.size_bytes, sha256=done.sha256)
"""


def install(folder: Path, name: str, *, scheme: str, code: str, target: str = "Source", version: str = "1.0") -> None:
    """Install the package `name`: its only module has this code, and `target` in it is the plug-in for `scheme`."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[archisync.sources]\n{scheme} = {name}:{target}\n")
