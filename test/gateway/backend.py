# SPDX-License-Identifier: Apache-2.0
"""A backend for gateway tests, one process each so that it can be killed: backend.py NAME ADDRESS PORT [tcp]

HTTP: any path answers "NAME" and, for POST, how often this process has seen the Idempotency-Key; /stream sends a line every 50 ms
for ever; /slow answers after 2 s; /xff answers the header X-Forwarded-For. TCP: a line with NAME every 50 ms."""
import http.server
import socketserver
import sys
import time

NAME, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = NAME
        if self.path == "/stream":
            return self.stream()
        if self.path == "/slow":
            time.sleep(2)
        if self.path == "/xff":
            body = self.headers.get("X-Forwarded-For", "")
        self.answer(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(NAME)

    do_PUT = do_POST

    def answer(self, body):
        self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def stream(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = f"{NAME}\n".encode()
        while True:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            time.sleep(0.05)

    def log_message(self, *args):
        pass


class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            self.request.sendall(f"{NAME}\n".encode())
            time.sleep(0.05)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass


Server((ADDRESS, PORT), Tcp if sys.argv[4:] == ["tcp"] else Http).serve_forever()
