"""The disk under a ledger: whether it is full or cannot be written, and whether other machines share it."""

import errno
import os
import sqlite3
from pathlib import Path

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "gpfs", "beegfs", "glusterfs",
           "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "pvfs2", "orangefs")  # fmt: skip
_OF_THE_DISK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")
_PROBE = 1 << 16  # bytes


def fault_of_disk(error: sqlite3.Error | OSError, file: Path) -> OSError | None:
    """Returns the system's error behind one of sqlite's, which keeps it to itself; None for an error of another kind.

    A full disk, a spent quota and a disk that is read-only look alike to sqlite: a few bytes written beside the file
    tell which it is.
    """
    if isinstance(error, OSError):
        return error if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM) else None
    if not (getattr(error, "sqlite_errorname", None) or "").startswith(_OF_THE_DISK):
        return None
    probe = file.with_name(f".{file.name}.probe")
    try:
        with probe.open("wb") as opened:
            opened.write(bytes(_PROBE))
            opened.flush()
            os.fsync(opened.fileno())
        found = None
    except OSError as fault:
        found = fault.errno
    finally:
        try:
            probe.unlink(missing_ok=True)
        except OSError:
            pass
    if found is None and error.sqlite_errorname == "SQLITE_FULL":
        found = errno.ENOSPC
    if found is None and error.sqlite_errorname.startswith("SQLITE_READONLY") and not os.access(file, os.W_OK):
        found = errno.EACCES
    return OSError(found, os.strerror(found), str(file)) if found else None


def is_on_network(file: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Returns whether the file is, or would be, on a disk of the network; False where the system does not say."""
    place, kind, longest = os.path.realpath(file), "", -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        before, _, behind = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not behind:
            continue
        point = fields[4].replace("\\040", " ")
        if len(point) >= longest and (place == point or place.startswith(point.rstrip("/") + "/")):
            kind, longest = behind.split()[0], len(point)
    return kind in NETWORK
