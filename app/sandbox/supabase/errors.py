"""Errors as Storage and Auth send them.

Storage answers HTTP 400 to almost everything and puts the true status, as a string, into the body.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

AUTH_VERSION = "2024-01-01"


@dataclass
class StorageRefusal(Exception):
    """``status`` is the true status of the body; ``http`` is what the wire shows."""

    status: int
    error: str
    message: str
    code: str
    http: int = 400

    def response(self) -> Response:
        body = {"statusCode": str(self.status), "error": self.error, "message": self.message, "code": self.code}
        return JSONResponse(body, status_code=self.http)


def object_missing() -> StorageRefusal:
    return StorageRefusal(404, "not_found", "Object not found", "NoSuchKey")


def bucket_missing() -> StorageRefusal:
    return StorageRefusal(404, "Bucket not found", "Bucket not found", "NoSuchBucket")


def key_exists() -> StorageRefusal:
    return StorageRefusal(409, "Duplicate", "The resource already exists", "KeyAlreadyExists")


def bucket_exists() -> StorageRefusal:
    return StorageRefusal(409, "Duplicate", "The resource already exists", "BucketAlreadyExists")


def bucket_not_empty() -> StorageRefusal:
    message = "The bucket you tried to delete is not empty"
    return StorageRefusal(409, "ResourceNotEmpty", message, "ResourceNotEmpty")


def policy_denies() -> StorageRefusal:
    return StorageRefusal(403, "Unauthorized", "new row violates row-level security policy", "AccessDenied")


def bad_token(message: str = "Invalid Compact JWS") -> StorageRefusal:
    return StorageRefusal(403, "Unauthorized", message, "AccessDenied")


def invalid_key(key: str) -> StorageRefusal:
    return StorageRefusal(400, "InvalidKey", f"Invalid key: {key}", "InvalidKey")


def invalid_bucket_name() -> StorageRefusal:
    return StorageRefusal(400, "Invalid Input", "Bucket name invalid", "InvalidBucketName")


def too_large() -> StorageRefusal:
    message = "The object exceeded the maximum allowed size"
    return StorageRefusal(413, "Payload too large", message, "EntityTooLarge")


def mime_refused(content_type: str) -> StorageRefusal:
    message = f"mime type {content_type} is not supported"
    return StorageRefusal(415, "invalid_mime_type", message, "InvalidMimeType")


def bad_link(message: str) -> StorageRefusal:
    return StorageRefusal(400, "InvalidJWT", message, "InvalidJWT")


def wrong_link(message: str = "Invalid signature") -> StorageRefusal:
    return StorageRefusal(400, "InvalidSignature", message, "InvalidSignature")


def bad_request(message: str, error: str = "Error") -> StorageRefusal:
    """``Error`` is how the check against the route's schema is named."""
    return StorageRefusal(400, error, message, "InvalidRequest")


def bad_content(message: str) -> StorageRefusal:
    return StorageRefusal(400, "InvalidRequest", message, "InvalidRequest")


def bad_parameter(message: str) -> StorageRefusal:
    return StorageRefusal(400, "InvalidParameter", message, "InvalidParameter")


def no_authorization() -> StorageRefusal:
    return bad_request("headers must have required property 'authorization'")


def related_missing() -> StorageRefusal:
    return StorageRefusal(404, "InvalidRequest", "The related resource does not exist", "InvalidRequest")


def access_denied() -> StorageRefusal:
    return StorageRefusal(403, "Unauthorized", "Access denied", "AccessDenied")


def role_refused() -> StorageRefusal:
    return StorageRefusal(403, "Unauthorized", "Access denied: Invalid role", "AccessDenied", http=403)


def moved_onto_existing() -> StorageRefusal:
    return StorageRefusal(409, "Duplicate", "The resource already exists", "ResourceAlreadyExists")


def no_content_type() -> StorageRefusal:
    return StorageRefusal(415, "invalid_mime_type", "Invalid Content-Type header", "InvalidMimeType")


def no_such_route(method: str, path: str) -> StorageRefusal:
    return StorageRefusal(404, "Not Found", f"Route {method}:{path} not found", "InvalidRequest", http=404)


def bad_range() -> StorageRefusal:
    message = "invalid range provided"
    return StorageRefusal(416, "invalid_range", message, "InvalidRange", http=416)


def secret_in_browser() -> StorageRefusal:
    message = "Forbidden use of secret API key in browser"
    return StorageRefusal(401, "Unauthorized", message, "AccessDenied", http=401)


def database_unavailable() -> StorageRefusal:
    message = "The connection to the database timed out"
    return StorageRefusal(544, "DatabaseTimeout", message, "DatabaseTimeout", http=544)


@dataclass
class AuthRefusal(Exception):
    """An Auth error; its shape depends on the version header of the request."""

    http: int
    code: str
    message: str

    def response(self, request: Request) -> Response:
        if request.headers.get("x-supabase-api-version", "") >= AUTH_VERSION:
            body: dict[str, object] = {"code": self.code, "message": self.message}
            return JSONResponse(body, self.http, {"x-supabase-api-version": AUTH_VERSION})
        return JSONResponse({"code": self.http, "error_code": self.code, "msg": self.message}, self.http)
