"""Storage URLs as they may be shown and written down: without passwords."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from metaformer.errors import mask_passwords


def can_be_parsed(url: str) -> bool:
    """Whether this is the form of a database's URL."""
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        return False
    return True


def is_kept(url: str) -> bool:
    """Whether a database is still there when the program has ended; not so one of SQLite in memory."""
    if not can_be_parsed(url) or make_url(url).get_backend_name() != "sqlite":
        return True
    given = make_url(url)
    in_memory = {given.query.get("mode"), given.query.get("vfs")} & {"memory", "memdb"}
    return (given.database or "").removeprefix("file:") not in ("", ":memory:") and not in_memory


def without_password(url: str) -> str:
    """The URL to write down; who goes on gives the password again, or leaves it to PGPASSWORD or ~/.pgpass."""
    if not can_be_parsed(url):  # such as journal:PATH
        return mask_passwords(url)
    given = make_url(url)
    if given.password is None and "password" not in given.query:
        return url
    query = {key: value for key, value in given.query.items() if key != "password"}
    kept = URL.create(given.drivername, given.username, None, given.host, given.port, given.database, query)
    return kept.render_as_string()
