"""The objects below an address, by Google's own library; each of its errors becomes a sentence."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jaxmnist.bucket.address import Address, check_library
from jaxmnist.errors import WorkdirError

#: Seconds to connect, and to wait for a part of an answer.
TIMEOUT_S: Final = (5.0, 15.0)
#: Seconds for which a request that fails for a passing reason is repeated.
RETRY_S: Final = 10.0


class StoreError(WorkdirError):
    """The store cannot be used; the text says why, and what to do."""


class Conflict(WorkdirError):
    """An object is not of the generation that was expected: somebody else has written it."""


@dataclass(frozen=True)
class Object:
    """What a listing says of an object.

    Attributes:
      md5: of its content, base64; None where the store does not tell.
      size_bytes: of its content.
    """

    md5: str | None
    size_bytes: int


class Store:
    """The objects whose names begin with the path of an address; names are relative to it.

    Credentials are those that Google's libraries find: of the machine, of `gcloud auth
    application-default login`, or none where STORAGE_EMULATOR_HOST names another endpoint.
    """

    def __init__(self, address: Address):
        """Finds the credentials, and asks for nothing yet.

        Raises:
          UsageError: the library is not installed.
          StoreError: there are no credentials.
        """
        check_library(address)
        with warnings.catch_warnings():
            # It warns of parts of gRPC that it then does not need.
            warnings.simplefilter("ignore")
            from google.cloud import storage
            from google.cloud.storage.retry import DEFAULT_RETRY
        self.address = address
        self._prefix = f"{address.path}/" if address.path else ""
        self._options = {"timeout": TIMEOUT_S, "retry": DEFAULT_RETRY.with_timeout(RETRY_S)}
        with _told(address):
            self._client: Any = storage.Client(project=None)
        self._bucket: Any = self._client.bucket(address.bucket)

    def listing(self, *, most: int | None = None) -> dict[str, Object]:
        """All objects by name, or the first ones.

        Raises:
          StoreError: the bucket does not exist, is forbidden, or does not answer.
        """
        with _told(self.address):
            fields = "items(name,md5Hash,size),nextPageToken"
            blobs = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix,
                max_results=most,
                fields=fields,
                **self._options,
            )
            cut = len(self._prefix)
            # A console's "folder" is an object whose name ends in a slash.
            return {
                blob.name[cut:]: Object(blob.md5_hash, blob.size or 0)
                for blob in blobs
                if not blob.name.endswith("/")
            }

    def read(self, name: str) -> tuple[bytes, int] | None:
        """The content of a small object and its generation; None where there is none.

        Raises:
          StoreError: the store cannot be used.
        """
        with _told(self.address):
            if (blob := self._bucket.get_blob(self._prefix + name, **self._options)) is None:
                return None
            return blob.download_as_bytes(**self._options), blob.generation

    def write(self, name: str, content: bytes, *, generation: int) -> int:
        """Writes a small object in place of one generation of it; 0 is for a new one.

        Returns:
          The new generation.

        Raises:
          Conflict: the object has another generation.
          StoreError: the store cannot be used.
        """
        blob = self._bucket.blob(self._prefix + name)
        with _told(self.address):
            blob.upload_from_string(
                content, if_generation_match=generation, checksum=None, **self._options
            )
        return int(blob.generation)

    def put(self, name: str, content: bytes | Path) -> None:
        """Writes an object, whatever was there.

        Raises:
          FileNotFoundError: the file has gone.
          StoreError: the store cannot be used.
        """
        blob = self._bucket.blob(self._prefix + name)
        with _told(self.address):
            if isinstance(content, Path):
                blob.upload_from_filename(str(content), **self._options)
            else:
                blob.upload_from_string(content, "application/octet-stream", **self._options)

    def fetch(self, name: str, path: Path) -> None:
        """Reads an object into a new file; its checksum is verified.

        Raises:
          FileNotFoundError: there is no such object any more.
          StoreError: the store cannot be used.
        """
        from google.api_core.exceptions import NotFound

        path.parent.mkdir(parents=True, exist_ok=True)
        with _told(self.address):
            try:
                self._bucket.blob(self._prefix + name).download_to_filename(
                    str(path), **self._options
                )
            except NotFound as error:
                raise FileNotFoundError(f"{self.address}/{name}") from error

    def delete(self, name: str) -> None:
        """Deletes an object, if it is there.

        Raises:
          StoreError: the store cannot be used.
        """
        from google.api_core.exceptions import NotFound

        with _told(self.address):
            try:
                self._bucket.blob(self._prefix + name).delete(**self._options)
            except NotFound:
                return


@contextmanager
def _told(address: Address) -> Iterator[None]:
    """Turns the errors of the library into ours; those of this machine's files pass."""
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from requests import RequestException

    try:
        yield
    except PreconditionFailed as error:
        raise Conflict(f"work directory {address} was written by somebody else") from error
    except (GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
        raise StoreError(_sentence(address, error)) from error


def _sentence(address: Address, error: Exception) -> str:
    from google.api_core.exceptions import Forbidden, NotFound, Unauthorized
    from google.auth.exceptions import DefaultCredentialsError, RefreshError

    place = f"work directory {address}"
    cause = getattr(error, "cause", None) or error
    detail = " ".join(str(getattr(cause, "message", cause)).split())[:200]
    if isinstance(cause, DefaultCredentialsError | RefreshError):
        repair = "run `gcloud auth application-default login`, or use a machine with an account"
        return f"{place}: there are no Google credentials that can be used ({detail}); {repair}"
    if isinstance(cause, NotFound):
        repair = f"create it (gcloud storage buckets create gs://{address.bucket})"
        return f"{place}: there is no bucket {address.bucket}: {repair}, or correct --workdir"
    if isinstance(cause, Forbidden | Unauthorized):
        repair = f"give the account the role Storage Object User on gs://{address.bucket}"
        return f"{place} is forbidden to these credentials ({detail}): {repair}"
    repair = "look at the network, or try again later"
    return f"{place} cannot be reached ({type(cause).__name__}: {detail}): {repair}"
