"""Put files away in one verified `.tar.zst`, and bring them back.

Knows nothing of tickets: `close` says what goes in. The last member is `manifest.json` with size and
sha256 of every other; `verify` reads the whole archive against it, and nothing is removed before
that. Compression is Debian's zstd: Python has none before 3.14.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import ConfigError, Unavailable
from orchestrator.progress import SILENT, Advance, Meter

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """An archive that was written and read again."""

    path: Path
    size_bytes: int
    sha256: str
    manifest: Mapping[str, Any]


class _Hashed:
    """A file that is read once, up to a length, and hashed on the way."""

    def __init__(self, file: IO[bytes], size: int, advance: Advance) -> None:
        self._file, self._left, self.digest = file, size, hashlib.sha256()
        self._advance = advance

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(min(count if count >= 0 else self._left, self._left))
        self._left -= len(data)
        self.digest.update(data)
        self._advance(len(data))
        return data


def pack(
    target: Path,
    texts: Mapping[str, str],
    files: Mapping[str, Path],
    facts: Mapping[str, Any],
    *,
    meter: Meter = SILENT,
) -> Packed:
    """Writes an archive, syncs it, and reads it again; nothing stays when that fails.

    Args:
        target: where; must not exist.
        texts: name in the archive to content.
        files: name in the archive to a regular file or a symbolic link. A file that grows meanwhile
            is taken up to the length it had.
        facts: what the manifest says besides.
        meter: told of the bytes of the files, each twice: read into it, and read again out of it.

    Raises:
        ConfigError: zstd is missing, the disk is full, a file cannot be read.
        Unavailable: what was written is not what was to be.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with open(partial, "wb", opener=_private) as out:
            meter.expect(2 * sum(_length(path) for path in files.values()))
            members = _write(out, texts, files, facts, meter)
            out.flush()
            os.fsync(out.fileno())
        found = verify(partial, advance=meter)
        if found["members"] != members:
            raise Unavailable(f"{target} was written, and reads otherwise: nothing was removed.")
        os.link(partial, target)  # unlike rename, it never replaces one
        _sync_folder(target.parent)
    except FileExistsError:
        raise ConfigError(f"{target} exists already.", hint="Try again in a second.") from None
    except OSError as error:
        raise ConfigError(
            f"{error.filename or target} could not be archived: {error.strerror}.",
            hint=f"Is there space? df -h {target.parent}",
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Packed(target, target.stat().st_size, digest, found)


def _length(path: Path) -> int:
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write(
    out: IO[bytes],
    texts: Mapping[str, str],
    files: Mapping[str, Path],
    facts: Mapping[str, Any],
    advance: Advance,
) -> dict[str, dict[str, Any]]:
    members: dict[str, dict[str, Any]] = {}
    with _zstd(["-q", "-c", "-T0", "-5"], stdout=out) as process:
        assert process.stdin is not None  # noqa: S101  # for mypy: it is a pipe
        try:
            with (
                process.stdin as pipe,
                tarfile.open(fileobj=pipe, mode="w|", format=tarfile.PAX_FORMAT) as tar,
            ):
                for name, text in texts.items():
                    members[name] = _add_text(tar, name, text)
                for name, path in files.items():
                    members[name] = _add_file(tar, name, path, advance)
                _add_text(tar, MANIFEST, json.dumps({**facts, "members": members}, indent=1))
        except BrokenPipeError:
            pass  # zstd says why
    return members


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> dict[str, Any]:
    data = text.encode("utf-8", "surrogatepass")
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _add_file(tar: tarfile.TarFile, name: str, path: Path, advance: Advance) -> dict[str, Any]:
    info = tarfile.TarInfo(name)
    if path.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
        tar.addfile(info)
        return {"link": info.linkname}
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is no regular file.")
        info.size, info.mode, info.mtime = status.st_size, status.st_mode & 0o777, status.st_mtime
        source = _Hashed(file, status.st_size, advance)
        tar.addfile(info, source)
    return {"size": info.size, "sha256": source.digest.hexdigest()}


@contextlib.contextmanager
def _zstd(args: list[str], **kwargs: Any) -> Iterator[subprocess.Popen[bytes]]:
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs}
    try:
        process = subprocess.Popen(["zstd", *args], **streams)
    except FileNotFoundError:
        raise ConfigError("zstd is not installed.", hint="sudo apt install zstd") from None
    try:
        yield process
        said = process.stderr.read() if process.stderr else b""
        if process.wait():
            text = said.decode("utf-8", "replace").strip() or f"status {process.returncode}"
            raise ConfigError(f"zstd: {text}.", hint="Is there space? df -h")
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        if process.poll() is None:
            process.kill()
        process.wait()


@contextlib.contextmanager
def _followed(file: FileIO, meter: Meter) -> Iterator[None]:
    """zstd has the same open file as we do: how far it has read is where ours stands."""
    meter.follow(file.tell)
    try:
        yield
    finally:
        meter.follow(None)


@contextlib.contextmanager
def _reading(path: Path, meter: Meter) -> Iterator[tarfile.TarFile]:
    with (
        path.open("rb", buffering=0) as file,
        _followed(file, meter),
        _zstd(["-d", "-q", "-c"], stdin=file, stdout=subprocess.PIPE) as process,
    ):
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield tar
        except tarfile.TarError as error:
            raise ConfigError(f"{path} is no whole archive: {error}.") from None
        assert process.stdout is not None  # noqa: S101  # for mypy: it is a pipe
        while process.stdout.read(_BLOCK):
            pass


def verify(path: Path, *, meter: Meter = SILENT, advance: Advance = SILENT) -> dict[str, Any]:
    """Reads an archive to its end and compares every member with the manifest; the manifest.

    Args:
        path: the archive.
        meter: asks meanwhile how many bytes of the archive were read.
        advance: told of the bytes of its members.

    Raises:
        ConfigError: it is not whole, or not what its manifest says.
    """
    members: dict[str, dict[str, Any]] = {}
    manifest: dict[str, Any] | None = None
    with _reading(path, meter) as tar:
        for info in tar:
            if info.issym():
                members[info.name] = {"link": info.linkname}
                continue
            file = tar.extractfile(info)
            if file is None:
                raise ConfigError(f"{path} holds {info.name!r}, which is no file.")
            if info.name == MANIFEST:
                manifest = json.loads(file.read(MAX_MANIFEST_BYTES))
                continue
            digest = hashlib.sha256()
            while data := file.read(_BLOCK):
                digest.update(data)
                advance(len(data))
            members[info.name] = {"size": info.size, "sha256": digest.hexdigest()}
    if manifest is None or manifest.get("members") != members:
        raise ConfigError(f"{path} is not what its manifest says.")
    return manifest


def unpack(
    path: Path,
    place_of: Callable[[str], tuple[Path, str] | None],
    *,
    replace: bool = False,
    meter: Meter = SILENT,
) -> list[str]:
    """Brings members back; the names of those that were.

    What is there already stays as it is, unless `replace`; folders stay in any case. Nothing is
    written outside the folder that is named.

    Args:
        path: the archive.
        place_of: a member's name to a folder and a path below it, or None for what stays inside.
        replace: what is there goes, when it is a file or a link.
        meter: told of the bytes of the archive, twice: read to its end, then read to be unpacked.

    Raises:
        ConfigError: the archive is gone or not whole, or there is no space.
    """
    size = path.stat().st_size if path.exists() else 0
    meter.expect(2 * size)
    verify(path, meter=meter)
    meter(size)
    done: list[str] = []
    with _reading(path, meter) as tar:
        for info in tar:
            wanted = None if info.name == MANIFEST else place_of(info.name)
            if wanted is None:
                continue
            folder, name = wanted
            place = folder / name
            inside = Path(os.path.realpath(place.parent))
            if (
                ".." in Path(name).parts
                or not inside.is_relative_to(os.path.realpath(folder))
                or (os.path.lexists(place) and (not replace or _is_folder(place)))
            ):
                continue
            try:
                place.unlink(missing_ok=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                if info.issym():
                    place.symlink_to(info.linkname)
                elif file := tar.extractfile(info):
                    _restore(file, place, info)
            except OSError as error:
                raise ConfigError(f"{place} cannot be brought back: {error.strerror}.") from None
            done.append(info.name)
    return done


def _is_folder(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


def _restore(file: IO[bytes], place: Path, info: tarfile.TarInfo) -> None:
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, info.mode & 0o777)
    with os.fdopen(fd, "wb") as out:
        while data := file.read(_BLOCK):
            out.write(data)
    os.chmod(place, info.mode & 0o777)
    os.utime(place, (info.mtime, info.mtime))
