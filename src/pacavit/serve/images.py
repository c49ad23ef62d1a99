"""The image files in the body of a request: the body itself, or the parts of a form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from pacavit.serve.refusals import Refusal
from pacavit.utils.text import shown

__all__ = ["Upload", "uploads"]

_MOST_FIELDS = 100


class Upload(NamedTuple):
    """An image file: its name, given by the client, and its content."""

    name: str
    data: bytes


class _InMemory(MultiPartParser):
    """Keeps files in memory: the whole body is there already, and the disk may be read-only."""

    spool_max_size = 2**40


def _is_text(data: bytes) -> bool:
    return data.isascii() and b"\0" not in data


async def uploads(request: Request, max_images: int) -> list[Upload]:
    """The image files of a request, in order.

    Raises:
        Refusal: there is none, there are too many, or the form is broken.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        # curl gives this type to whatever it sends; forms are text, image files are not.
        if kind == "application/x-www-form-urlencoded" and _is_text(body[:1024]):
            raise Refusal(
                415,
                "send the image itself (curl --data-binary @FILE) or a form with files "
                "(curl -F image=@FILE)",
            )
        if not body:
            raise Refusal(400, "the body is empty; send an image file")
        return [Upload("image 0", body)]

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = _InMemory(request.headers, stream(), max_files=max_images, max_fields=_MOST_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"the form cannot be read: {error.message}") from None
    except Exception as error:
        # The parser raises various errors on broken forms, such as KeyError without a boundary.
        raise Refusal(400, "the form cannot be read; is its boundary right?") from error
    found: list[Upload] = []
    try:
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                name = shown(value.filename or f"image {len(found)}")
                found.append(Upload(name, await value.read()))
    finally:
        await form.close()
    if not found:
        raise Refusal(400, "the form has no files; send them as curl -F image=@FILE does")
    return found
