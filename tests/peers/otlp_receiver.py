"""A collector that prints what it gets: otlp_receiver.py HOST. Prints the port of OTLP/HTTP, then `grpc PORT`.

Reads with the messages of OpenTelemetry's own package. Each span is a line of JSON. The first message that it gets is
answered with "try again", on either transport.
"""

import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

printing = threading.Lock()
turned_away = set()


def values(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def show(request, transport, fields):
    for resource in request.resource_spans:
        about = values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                line = {
                    "transport": transport,
                    "fields": fields,
                    "resource": about,
                    "scope": scope.scope.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind),
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": values(span.attributes),
                    "is_error": span.status.code == Status.STATUS_CODE_ERROR,
                }
                with printing:
                    print(json.dumps(line), flush=True)


def is_first(transport):
    with printing:
        is_new = transport not in turned_away
        turned_away.add(transport)
        return is_new


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        good = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        answer = b""
        if not good:
            self.send_response(404)
        elif is_first("http"):
            self.send_response(503)
            self.send_header("retry-after", "1")
        else:
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            show(request, "http", {key.lower(): value for key, value in self.headers.items()})
            answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Grpc(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if is_first("grpc"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        show(request, "grpc", dict(context.invocation_metadata()))
        return trace_service_pb2.ExportTraceServiceResponse()


def main():
    host = sys.argv[1]
    http = ThreadingHTTPServer((host, 0), Http)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Grpc(), server)
    port = server.add_insecure_port(f"{host}:0")
    server.start()
    print(f"grpc {port}", flush=True)
    print(http.server_address[1], flush=True)
    http.serve_forever()


main()
