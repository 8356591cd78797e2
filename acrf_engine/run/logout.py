"""Whether this machine ends its users' processes when they log out, and what to do about it.

systemd-logind does so with `KillUserProcesses=yes`, unless the user lingers; a session of its own does not help.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

REMEDY = (
    "this machine ends your processes when you log out (systemd: KillUserProcesses=yes); "
    "to train on without you, run `loginctl enable-linger` once"
)
FOLDERS = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")
"""Where logind's settings are, the strongest last."""


def ends_at_logout(root: Path = Path("/")) -> str:
    """What to do, where a logout would end the run; empty where nothing would, or it cannot be told."""
    if not (root / "run/systemd/system").is_dir():
        return ""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        return ""
    if user == "root" or (root / "var/lib/systemd/linger" / user).exists():
        return ""  # logind leaves root alone by default
    setting = "no"
    for line in _lines(root):
        key, _, value = line.partition("=")
        if key.strip() == "KillUserProcesses":
            setting = value.strip().lower()
    return REMEDY if setting in ("yes", "true", "on", "1") else ""


def _lines(root: Path) -> Iterator[str]:
    mains = [root / folder / "logind.conf" for folder in FOLDERS]
    drop_ins = {
        path.name: path for folder in FOLDERS for path in (root / folder / "logind.conf.d").glob("*.conf")
    }  # fmt: skip
    for path in [*mains, *(drop_ins[name] for name in sorted(drop_ins))]:
        try:
            yield from path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
