"""OpenTelemetry: FastAPI makes a span of each request; below it are its wait, its decoding, its frames, their encoding.

Spans are sent where the standard variables say, OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_TRACES_EXPORTER, once talker[otel]
is installed. Otherwise they cost next to nothing.
"""

import os
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from models.errors import MalformedInput

SWITCHES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
UNTRACED = {"/health/live", "/health/ready", "/metrics"}
TELEMETRY: TelemetryConfig = {
    "metrics": False,  # service.metrics has them
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
    "exclude": lambda scope: scope["path"] in UNTRACED,
}
"""What FastAPI itself does of it."""

tracer = trace.get_tracer("talker")


def install_traces() -> None:
    """Send spans where the environment says, if it does. MalformedInput for an exporter that there is not."""
    exporter, asked = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp", list(filter(os.environ.get, SWITCHES))
    if exporter == "none" or not asked:
        return
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MalformedInput(
            f"{', '.join(asked)} asks for traces, without the OpenTelemetry SDK; wanted it: install talker[otel], or "
            "unset that"
        ) from error
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    trace.set_tracer_provider(provider)


def _exporter(name: str) -> Any:
    if name == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    raise MalformedInput(f"OTEL_TRACES_EXPORTER={name}; wanted otlp, console or none: set one of them")
