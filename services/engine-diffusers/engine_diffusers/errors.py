"""What does a caller see of a failure: a gRPC code, a reason for programs, a sentence, and figures. See docs/engines.md, Errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from .contract import message

DOMAIN = "diffusionmesh"
# All of a status has to fit into the 8 KB that gRPC gives headers.
_MAX_MESSAGE_CHARS = 1500
_MAX_VIOLATIONS = 16

Code = grpc.StatusCode


@dataclass(frozen=True)
class Violation:
    """A field path as in the proto, and what was expected and what came."""

    field: str
    description: str


@dataclass(frozen=True)
class Resource:
    type: str
    name: str
    description: str


class StatusError(Exception):
    """The one class that crosses the boundary of this process."""

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        text: str,
        *,
        violations: Sequence[Violation] = (),
        resource: Resource | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.text = clip(text)
        self.violations = tuple(violations)[:_MAX_VIOLATIONS]
        self.resource = resource
        self.metadata = dict(metadata or {})

    def details(self) -> bytes:
        """The content of the trailer grpc-status-details-bin."""
        rpc = "google.rpc"
        parts: list[Any] = [message("ErrorInfo", rpc)(reason=self.reason, domain=DOMAIN, metadata=self.metadata)]
        if self.violations:
            of = message("BadRequest", rpc).FieldViolation
            parts.append(
                message("BadRequest", rpc)(
                    field_violations=[of(field=v.field, description=clip(v.description, 300)) for v in self.violations]
                )
            )
        if self.resource is not None:
            parts.append(
                message("ResourceInfo", rpc)(
                    resource_type=self.resource.type,
                    resource_name=self.resource.name,
                    description=clip(self.resource.description),
                )
            )
        status = message("Status", rpc)(code=self.code.value[0], message=self.text)
        for part in parts:
            status.details.add(type_url=f"type.googleapis.com/{part.DESCRIPTOR.full_name}", value=part.SerializeToString())
        return status.SerializeToString()


def clip(text: str, max_chars: int = _MAX_MESSAGE_CHARS) -> str:
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def listed(names: Sequence[str], shown_count: int = 5) -> str:
    rest = len(names) - shown_count
    return ", ".join(names[:shown_count]) + (f" and {rest} more" if rest > 0 else "")


def bad_request(violations: Sequence[Violation]) -> StatusError:
    text = "; ".join(f"{v.field}: {v.description}" for v in violations)
    return StatusError(Code.INVALID_ARGUMENT, "BAD_REQUEST", text, violations=violations)


def model_unusable(text: str) -> StatusError:
    return StatusError(Code.FAILED_PRECONDITION, "MODEL_UNUSABLE", text)


def lora_unusable(name: str, why: str) -> StatusError:
    return StatusError(Code.FAILED_PRECONDITION, "LORA_UNUSABLE", f"LoRA {name}: {why}", resource=Resource("lora", name, why))


def not_found(reason: str, kind: str, name: str, exists: Sequence[str]) -> StatusError:
    description = f"there is {', '.join(exists)}" if exists else f"this model has no {kind}"
    return StatusError(
        Code.NOT_FOUND,
        reason,
        f'no {kind} "{clip(name, 140)}"; {description}',
        resource=Resource(kind, clip(name, 140), description),
    )


def prompt_too_long(token_count: int, limit: int) -> StatusError:
    description = f"expected at most {limit} tokens with its template, got {token_count}"
    return StatusError(
        Code.INVALID_ARGUMENT,
        "PROMPT_TOO_LONG",
        f"prompt: {description}",
        violations=[Violation("prompt", description)],
        metadata={"tokens": str(token_count), "limit": str(limit)},
    )


def busy(why: str) -> StatusError:
    return StatusError(Code.RESOURCE_EXHAUSTED, "ENGINE_BUSY", f"the engine is busy: {why}")


def not_ready(state: str) -> StatusError:
    return StatusError(Code.UNAVAILABLE, "ENGINE_NOT_READY", f"expected a loaded model, the engine is {state}")


def stopped() -> StatusError:
    """Not CANCELLED: the caller did not, and may try elsewhere."""
    return StatusError(Code.UNAVAILABLE, "DRAINING", "the engine is stopping")


def cancelled() -> StatusError:
    return StatusError(Code.CANCELLED, "CANCELLED", "the request was cancelled")


def numeric(reason: str, text: str) -> StatusError:
    return StatusError(Code.INTERNAL, reason, text)
