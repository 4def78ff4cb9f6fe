"""Errors as OpenAI's clients read them; none repeats what was sent."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

INVALID = "invalid_request_error"


class ApiError(Exception):
    """A request that is refused, or that failed, with its HTTP status.

    `param` names the parameter that is wrong, `code` is OpenAI's word for the mistake, and
    `retry_after` the seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.status, self.message, self.type = status, message, type
        self.param, self.code, self.retry_after = param, code, retry_after
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """Return the object that OpenAI's API answers with."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def response(self) -> Response:
        """Return the whole answer."""
        wait = self.retry_after
        headers = {"retry-after": str(wait)} if wait is not None else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def wrong(param: str, message: str, code: str | None = None) -> ApiError:
    """Return the error for a wrong parameter."""
    return ApiError(400, message, param=param, code=code)


def busy(message: str, seconds: int = 1) -> ApiError:
    """Return the error for a full queue, with when to try again."""
    return ApiError(
        429, message, type="rate_limit_error", code="rate_limit_exceeded", retry_after=seconds
    )


def failed(message: str = "The server failed; its log has the reason.") -> ApiError:
    """Return the error for what is not the client's fault."""
    return ApiError(500, message, type="server_error", code="internal_error")
