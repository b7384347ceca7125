"""Storage URLs: no password is written down or shown."""

import re

import pytest

from metaformer.errors import mask_passwords
from nas.record.storage import check_storage
from nas.study.database_url import is_kept, without_password
from nas.study.study import StudyError
from tests.nas.runs import make_study

SECRET = "s3cret"  # noqa: S105


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"postgresql://me:{SECRET}@host/db", "postgresql://me@host/db"),
        (f"postgresql+psycopg://me:{SECRET}%40x@host:5432/db", "postgresql+psycopg://me@host:5432/db"),
        (f"postgresql://me@host/db?sslmode=require&password={SECRET}", "postgresql://me@host/db?sslmode=require"),
        ("postgresql://me@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("journal:/data/study.log", "journal:/data/study.log"),
        (f"postgresql://me:{SECRET}@host:port/db", "postgresql://me:***@host:port/db"),
    ],
)
def test_a_study_is_written_without_its_password_and_opened_with_it(url: str, kept: str) -> None:
    assert without_password(url) == kept
    study = make_study(storage=url)
    assert study.storage == url
    assert study.model_dump()["storage"] == kept
    assert SECRET not in study.to_yaml()


@pytest.mark.parametrize("form", ["{}", "{}@x", "x@{}", "x:{}", "{}/x", "{}?x"])
def test_no_message_shows_a_password_not_even_of_a_url_that_cannot_be_parsed(form: str) -> None:
    url = f"postgresql://me:{form.format(SECRET)}@host:port/db"
    assert SECRET not in mask_passwords(f"the URL {url} is wrong, so is {url}")
    shown = re.escape("'postgresql://me:***@host:port/db'")
    with pytest.raises(StudyError, match=f"^storage: must be a database .*, got {shown} \\(no URL of .*\\)$") as error:
        check_storage(url)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite+pysqlite://",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:///file:/x?vfs=memdb&uri=true",
    ],
)
def test_a_database_in_memory_is_refused(url: str) -> None:
    shown = re.escape(repr(url))
    with pytest.raises(StudyError, match=f"^storage: must be a database that stays when the program ends, got {shown}"):
        check_storage(url)


@pytest.mark.parametrize("url", ["sqlite:////x/memory", "sqlite:///mode=memory", "postgresql://host/db", "journal:/x"])
def test_any_other_database_is_kept(url: str) -> None:
    assert is_kept(url)
