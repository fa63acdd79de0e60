"""The outer forms of the agent's answers: the original's two for errors, and headers that only our plugin reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypedDict

from aiohttp import web

if TYPE_CHECKING:
    from allocator.domain import errors


REASON_HEADER: Final = "X-Spiderpool-Reason"
CNI_CODE_HEADER: Final = "X-Spiderpool-CNI-Code"


class CodedError(TypedDict):
    code: int
    message: str


def bare(status: int, text: str) -> web.Response:
    """What an operation itself refuses with: a bare JSON string and a newline."""
    return web.Response(status=status, text=json.dumps(text) + "\n", content_type="application/json")


def coded(code: int, message: str) -> web.Response:
    """What is refused before an operation is reached. Codes from 600 on are no statuses: those answer 422."""
    error: CodedError = {"code": code, "message": message}
    return web.json_response(error, status=code if code < 600 else 422)


def refusal(error: errors.IpamError) -> web.Response:
    response = bare(error.http_status, str(error))
    response.headers[REASON_HEADER] = error.reason
    response.headers[CNI_CODE_HEADER] = str(error.cni_code)
    return response
