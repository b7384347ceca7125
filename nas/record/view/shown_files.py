"""Files of runs as Optuna's dashboard asks for them: by an id, and only to read."""

from io import BytesIO
from pathlib import Path
from typing import BinaryIO


class ShownFiles:
    """An artifact store of Optuna that keeps no copies: it opens a run's own file whenever it is asked for."""

    def __init__(self) -> None:
        """Begin without files."""
        self._paths: dict[str, Path] = {}

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The file as it is now; empty where it has been removed.

        Raises:
            KeyError: None has this id.
        """
        try:
            return self._paths[artifact_id].open("rb")
        except FileNotFoundError:
            return BytesIO()

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Note where a file lies; its content stays there."""
        self._paths[artifact_id] = Path(content_body.name)

    def remove(self, artifact_id: str) -> None:
        """Raise, since what is shown is only read."""
        raise PermissionError("files of runs are only read")
