"""A store of answers in one file, which several processes may use at once and which never stands in their way.

SQLite keeps it whole when a writer is killed; every row bears a seal besides,
as a flipped bit in a value is none of SQLite's concern. Whatever goes wrong
with the file is said once on the error stream, and the answers are then made anew.
The file has a rollback journal, not a write-ahead log: it is written to once in
many seconds, and a log needs memory shared between processes, which network folders do not have.
"""

import hashlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

T = TypeVar("T")
Row = tuple[bytes, bytes, bytes]

PATIENCE = 60.0  # seconds that a writer waits for another
AT_ONCE = 500  # keys in one query; old versions of SQLite take 999
TABLE = """CREATE TABLE IF NOT EXISTS answers
    (key BLOB PRIMARY KEY, value BLOB NOT NULL, seal BLOB NOT NULL) WITHOUT ROWID"""
# A flipped bit may lie in the text of the table's definition: then there is no such column, or the text is no UTF-8.
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
WRONG = (sqlite3.Error, OSError, UnicodeError)
BESIDE = ("-journal", "-wal", "-shm")  # SQLite would put another file's journal into a new one of the same name


class Store:
    """What is kept in the file at `path`; with None, or once that has failed, nothing is."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: sqlite3.Connection | None = None
        self._odd = 0  # rows whose seal is not theirs

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Give the values that are there, and whole."""
        asked = list(dict.fromkeys(keys))
        parts = [asked[i : i + AT_ONCE] for i in range(0, len(asked), AT_ONCE)]
        nothing: list[Row] = []
        rows = self._try(lambda file: [row for part in parts for row in _rows(file, part)], nothing)
        found = {key: value for key, value, seal in rows if isinstance(value, bytes) and seal == _seal(key, value)}
        if len(found) < len(rows) and not self._odd:
            self._odd = len(rows) - len(found)
            _say(f"{self._path}: {self._odd} kept answers are damaged; they are made anew")
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Keep values, all of them or, if this process is killed meanwhile, none."""
        rows = [(key, value, _seal(key, value)) for key, value in values.items()]
        self._try(lambda file: _write(file, rows), None)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _try(self, act: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Do something with the file; if it is damaged, once more with a new one. Give `otherwise` if that fails."""
        for again in (True, False):
            if self._path is None:
                break
            try:
                self._file = self._file or _open(self._path)
                return act(self._file)
            except WRONG as wrong:
                self.close()
                if not (again and _mended(wrong, self._path)):
                    _say(f"{self._path}: answers are not kept ({wrong})")
                    self._path = None
        return otherwise


@contextmanager
def opened(path: Path | None) -> Iterator[Store]:
    """Give the store at `path` for the block."""
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    file.text_factory = bytes  # a damaged value may call itself text
    try:
        file.execute(TABLE)
    except WRONG:
        file.close()
        raise
    return file


def _rows(file: sqlite3.Connection, keys: list[bytes]) -> list[Row]:
    places = ",".join("?" * len(keys))
    return file.execute(f"SELECT key, value, seal FROM answers WHERE key IN ({places})", keys).fetchall()  # noqa: S608


def _write(file: sqlite3.Connection, rows: list[Row]) -> None:
    file.execute("BEGIN IMMEDIATE")  # waits for its turn; a reader that turned writer could not
    try:
        file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def _seal(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()[:16]


def _mended(wrong: Exception, path: Path) -> bool:
    """Tell whether another attempt is worth it: the file was put aside, by this process or meanwhile by another."""
    moved = getattr(wrong, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED
    return moved or (_is_damage(wrong) and _put_aside(path))


def _is_damage(wrong: Exception) -> bool:
    return isinstance(wrong, UnicodeError) or getattr(wrong, "sqlite_errorcode", 0) & 0xFF in DAMAGED


def _put_aside(path: Path) -> bool:
    """Rename a damaged file, unless another process has done so already. Tells whether a new one can be begun."""
    try:
        with FileLock(f"{path}.lock", timeout=PATIENCE):
            if not _is_whole(path):
                aside = next(name for i in range(10**6) if not (name := Path(f"{path}.damaged{i or ''}")).exists())
                path.rename(aside)
                for end in BESIDE:
                    Path(f"{path}{end}").unlink(missing_ok=True)
                _say(f"{path}: is damaged; it is put aside as {aside.name}, and what it kept is made anew")
    except WRONG:
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Tell whether a file can be used. Raises sqlite3.Error where that cannot be told, as when it is locked."""
    try:
        with closing(_open(path)) as file:
            _rows(file, [b""])
            return bool(file.execute("PRAGMA quick_check").fetchone() == (b"ok",))
    except WRONG as wrong:
        if _is_damage(wrong):
            return False
        raise


def _say(told: str) -> None:
    print(told, file=sys.stderr, flush=True)
