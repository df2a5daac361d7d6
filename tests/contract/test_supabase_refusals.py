"""What an upload that is refused before its body does to the connection. Measured on Storage v1.70.6.

These hold where nothing stands between: a proxy in front of Storage may take the whole body itself.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.contract.supabase_target import SupabaseTarget, User

NO_ANSWER_SECONDS = 2.0  # an answer would come within milliseconds
FORM = "multipart/form-data; boundary=b0undary"
UNREAD = [
    *(("KeyAlreadyExists", form) for form in (False, True)),
    *(("AccessDenied", form) for form in (False, True)),
    *(("InvalidKey", form) for form in (False, True)),
    ("InvalidMimeType", True),
]
THROWN_AWAY = [("NoSuchBucket", False), ("NoSuchBucket", True), ("InvalidMimeType", False), ("EntityTooLarge", False)]
KEPT = b"kept"
MIB = 1024 * 1024


class Refused:
    """One kind of upload that is refused, whatever its body."""

    def __init__(self, target: SupabaseTarget, bucket: str, code: str, token: str) -> None:
        self._target = target
        self.code = code
        self._bucket = f"{bucket}-not" if code == "NoSuchBucket" else bucket
        self._key = {"KeyAlreadyExists": "kept", "InvalidKey": "a%7Cb"}.get(code, "other")
        self._type = "application/pdf" if code == "InvalidMimeType" else "image/png"
        self._token = token

    @property
    def base(self) -> str:
        return urlsplit(self._target.storage).path

    def connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self._target.storage).netloc, timeout=60)

    def send(
        self, connection: http.client.HTTPConnection, size: int, *, form: bool = False, close: bool = False
    ) -> None:
        content = b"x" * size
        headers = {"apikey": self._target.publishable_key, "Authorization": f"Bearer {self._token}"}
        if close:
            headers["Connection"] = "close"
        if form:
            head = (
                f'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: {self._type}'
            )
            content = f"{head}\r\n\r\n".encode() + content + b"\r\n--b0undary--\r\n"
        headers["Content-Type"] = FORM if form else self._type
        connection.request("POST", f"{self.base}/object/{self._bucket}/{self._key}", content, headers)

    def answer(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        """The refusal; its body is read."""
        reply = connection.getresponse()
        assert reply.status == 400
        assert json.loads(reply.read())["code"] == self.code
        return reply

    def is_served(self, connection: http.client.HTTPConnection) -> bool:
        """Whether another request on the connection gets its answer."""
        key = self._target.service_key
        try:
            connection.request("GET", f"{self.base}/bucket", headers={"apikey": key, "Authorization": f"Bearer {key}"})
            assert connection.sock is not None
            connection.sock.settimeout(NO_ANSWER_SECONDS)
            reply = connection.getresponse()
        except TimeoutError:
            return False
        return reply.status == 200


@contextmanager
def refusal(target: SupabaseTarget, user: User, code: str) -> Generator[Refused]:
    limit = 2000 if code == "EntityTooLarge" else None
    with target.bucket(allowed_mime_types=["image/png"], file_size_limit=limit) as bucket:
        with target.http() as http:
            url = f"{target.storage}/object/{bucket}/kept"
            http.post(url, content=KEPT, headers={"content-type": "image/png"}).raise_for_status()
        yield Refused(target, bucket, code, user.access_token if code == "AccessDenied" else target.service_key)
        with target.http() as http:
            assert http.get(url).content == KEPT


@pytest.mark.parametrize(("code", "form"), UNREAD)
def test_a_body_left_unread_blocks_its_connection(
    supabase: SupabaseTarget, user: User, code: str, *, form: bool
) -> None:
    with refusal(supabase, user, code) as refused, closing(refused.connected()) as connection:
        refused.send(connection, MIB, form=form)
        assert refused.answer(connection).getheader("connection") == "keep-alive"
        assert not refused.is_served(connection)


@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_a_large_body_left_unread_hides_the_answer(supabase: SupabaseTarget, user: User, *, form: bool) -> None:
    with refusal(supabase, user, "KeyAlreadyExists") as refused, closing(refused.connected()) as connection:
        connection.connect()
        connection.sock.settimeout(NO_ANSWER_SECONDS)
        with pytest.raises(TimeoutError):
            refused.send(connection, 30 * MIB, form=form)


@pytest.mark.parametrize("size", [1000, 20 * MIB])
@pytest.mark.parametrize(("code", "form"), UNREAD + THROWN_AWAY)
def test_who_closes_the_connection_is_answered(
    supabase: SupabaseTarget, user: User, code: str, size: int, *, form: bool
) -> None:
    with refusal(supabase, user, code) as refused, closing(refused.connected()) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # while we send; the answer was there first
            refused.send(connection, max(size, 2001), form=form, close=True)
        assert refused.answer(connection).getheader("connection") == "close"
        connection.close()
        assert refused.is_served(connection)


@pytest.mark.parametrize(
    ("code", "form", "size"), [(*case, 20_000) for case in UNREAD] + [(*case, 20 * MIB) for case in THROWN_AWAY]
)
def test_a_body_that_is_small_or_not_begun_does_no_harm(
    supabase: SupabaseTarget, user: User, code: str, size: int, *, form: bool
) -> None:
    with refusal(supabase, user, code) as refused, closing(refused.connected()) as connection:
        refused.send(connection, size, form=form)
        refused.answer(connection)
        assert refused.is_served(connection)
