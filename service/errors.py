"""Every error the service raises, and the one table that says what each is in HTTP.

NrpError                            (model_store.errors) raised on purpose; its text is one line for a person
├─ ModelStoreError                  (model_store.errors) a model could not be had; only the log gets the text
└─ ServiceError
   ├─ SettingsError                 the environment or the command line does not make valid settings
   ├─ CommandInputError             files named on the command line cannot be worked on as asked
   ├─ BenchError                    (service.bench.errors) a measurement cannot be made as asked
   ├─ RequestError                  the caller can put it right
   │  ├─ InvalidParameterError      a query parameter's value cannot be honoured here
   │  ├─ UnknownNameError           no model of that name is served
   │  ├─ NoDownstreamError          this service has no model of that task
   │  ├─ NotAcceptableError         none of the media types in Accept can be made
   │  ├─ BodyTooLargeError          more bytes than max_body_bytes
   │  ├─ UploadTimeoutError         the body did not arrive in time
   │  ├─ MalformedUploadError       multipart body broken, or without the files that belong in it
   │  ├─ TooManyFilesError          more files in one form than max_batch_files
   │  ├─ UnsupportedImageError      the bytes are no image of a supported format
   │  ├─ UnreadableImageError       an image of a supported format, but empty, broken or truncated
   │  ├─ TooManyPixelsError         the header announces more pixels than max_pixels
   │  ├─ AnimatedImageError         more than one frame
   │  ├─ UnencodableImageError      the format asked for cannot hold an image of this size
   │  ├─ MalformedInferenceError    a request of the Open Inference Protocol is broken or asks for what is not served
   │  ├─ ForbiddenError             an operator's route, and the admin key is unset, missing or wrong
   │  └─ UnusableCheckpointError    a model of the store cannot be put in service
   ├─ ClientDisconnectedError       nobody is waiting for the answer any more
   ├─ OverloadedError               no room now; retry_after says when to come back
   ├─ DeadlineExceededError         the answer would come later than request_timeout_s
   ├─ EngineStoppedError            the loop that owns the device has ended, or the service is draining
   ├─ NotReadyError                 readiness probe only
   ├─ OutOfDeviceMemoryError        even one image on its own does not fit
   └─ NonFiniteOutputError          the model's output for this image holds NaN or infinity
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from model_store.errors import ModelStoreError, NrpError


class ServiceError(NrpError):
    """Base of the service's errors."""


class SettingsError(ServiceError):
    """The settings are not valid."""


class CommandInputError(ServiceError):
    """The files named on the command line cannot be worked on as asked."""


class RequestError(ServiceError):
    """Base of what the caller can put right."""


class InvalidParameterError(RequestError):
    """A query parameter's value cannot be honoured."""


class UnknownNameError(RequestError):
    """No model of that name is served."""


class NoDownstreamError(RequestError):
    """The operator left out the model of this task."""


class NotAcceptableError(RequestError):
    """No media type in Accept can be made."""


class BodyTooLargeError(RequestError):
    """The body is longer than the limit."""


class UploadTimeoutError(RequestError):
    """The body did not arrive in time."""


class MalformedUploadError(RequestError):
    """The multipart body is broken or does not hold the files that it should."""


class TooManyFilesError(RequestError):
    """The form holds more files than the limit."""


class UnsupportedImageError(RequestError):
    """The bytes are no image of a supported format."""


class UnreadableImageError(RequestError):
    """The image is empty, broken or truncated."""


class TooManyPixelsError(RequestError):
    """The image has more pixels than the limit."""


class AnimatedImageError(RequestError):
    """The image has more than one frame."""


class UnencodableImageError(RequestError):
    """The format asked for cannot hold this image."""


class MalformedInferenceError(RequestError):
    """A request of the Open Inference Protocol cannot be understood or honoured."""


class ForbiddenError(RequestError):
    """The route is the operator's and the caller has not shown the admin key."""


class UnusableCheckpointError(RequestError):
    """A model of the store cannot be put in service; what was in service still is."""


class ClientDisconnectedError(ServiceError):
    """The client went away."""


class OverloadedError(ServiceError):
    """No room now; ``retry_after`` is in whole seconds."""

    def __init__(self, text: str, reason: str, retry_after: int = 1) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after = retry_after


class DeadlineExceededError(ServiceError):
    """Too late."""


class EngineStoppedError(ServiceError):
    """The loop that owns the device does not run."""


class NotReadyError(ServiceError):
    """The service cannot answer yet, or no longer."""


class OutOfDeviceMemoryError(ServiceError):
    """The device has no memory for this."""


class NonFiniteOutputError(ServiceError):
    """NaN or infinity came out of a model."""


@dataclass(frozen=True)
class HttpMeaning:
    """How one class of error is told to a client; ``public``: its text may be shown."""

    status: int
    slug: str
    title: str
    public: bool = True


# What counts as an image's own error in the metrics, rather than as a request turned away.
IMAGE_ERRORS: tuple[type[Exception], ...] = (
    MalformedUploadError,
    UnsupportedImageError,
    UnreadableImageError,
    TooManyPixelsError,
    AnimatedImageError,
    UnencodableImageError,
    OutOfDeviceMemoryError,
    NonFiniteOutputError,
)

UNEXPECTED = HttpMeaning(500, "internal-error", "Internal error", public=False)
CLIENT_CLOSED_REQUEST = 499

HTTP_MEANINGS: Mapping[type[Exception], HttpMeaning] = MappingProxyType(
    {
        InvalidParameterError: HttpMeaning(422, "invalid-parameter", "Invalid query parameter"),
        UnknownNameError: HttpMeaning(404, "unknown-model", "Unknown model"),
        NoDownstreamError: HttpMeaning(404, "no-downstream-model", "No model for this task"),
        NotAcceptableError: HttpMeaning(406, "not-acceptable", "Not acceptable"),
        BodyTooLargeError: HttpMeaning(413, "body-too-large", "Body too large"),
        UploadTimeoutError: HttpMeaning(408, "upload-timeout", "Upload took too long"),
        MalformedUploadError: HttpMeaning(422, "malformed-upload", "Malformed upload"),
        TooManyFilesError: HttpMeaning(413, "too-many-files", "Too many files"),
        UnsupportedImageError: HttpMeaning(415, "unsupported-image", "Unsupported image format"),
        UnreadableImageError: HttpMeaning(422, "unreadable-image", "Unreadable image"),
        TooManyPixelsError: HttpMeaning(422, "too-many-pixels", "Too many pixels"),
        AnimatedImageError: HttpMeaning(422, "animated-image", "Animated image"),
        UnencodableImageError: HttpMeaning(422, "unencodable-image", "Format cannot hold this image"),
        MalformedInferenceError: HttpMeaning(400, "malformed-inference", "Malformed inference request"),
        ForbiddenError: HttpMeaning(403, "forbidden", "Forbidden"),
        UnusableCheckpointError: HttpMeaning(409, "unusable-checkpoint", "Checkpoint cannot be put in service"),
        ClientDisconnectedError: HttpMeaning(CLIENT_CLOSED_REQUEST, "client-closed-request", "Client closed request"),
        OverloadedError: HttpMeaning(429, "overloaded", "Too many requests in flight"),
        DeadlineExceededError: HttpMeaning(504, "deadline-exceeded", "Deadline exceeded"),
        EngineStoppedError: HttpMeaning(503, "engine-stopped", "Engine stopped"),
        NotReadyError: HttpMeaning(503, "not-ready", "Not ready"),
        OutOfDeviceMemoryError: HttpMeaning(503, "out-of-device-memory", "Out of device memory"),
        NonFiniteOutputError: HttpMeaning(500, "non-finite-output", "Model output is not finite"),
        ModelStoreError: HttpMeaning(503, "model-unavailable", "Model unavailable", public=False),
    }
)


def http_meaning(error: BaseException) -> HttpMeaning:
    """The table's entry of the nearest class of ``error``; UNEXPECTED where there is none."""
    for kind in type(error).__mro__:
        if kind in HTTP_MEANINGS:
            return HTTP_MEANINGS[kind]
    return UNEXPECTED
