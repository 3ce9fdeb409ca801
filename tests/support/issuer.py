"""A small OAuth issuer over real HTTP: its metadata, keys, tokens, and how people sign in."""

import base64
import functools
import gzip
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "https://state.example.com"
CLIENT_ID = "the page"
ELSEWHERE = "/elsewhere"
AGREEMENT = b"""<!doctype html><html lang=en><title>Issuer</title><link rel=icon href=data:,>
<form method=post><button>Agree</button></form>"""

Trick = Literal["drips", "floods", "bomb", "elsewhere"]


@functools.cache
def private_key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class OAuthIssuer:
    """Signs with its newest key. `rotate` replaces that key; `is_silent` answers 503.

    `trick` changes its answers, until the client disconnects: `drips` sends a byte at a time,
    `floods` sends without end, `elsewhere` redirects, and `bomb` is small until it is decompressed.

    Everybody who asks at `/authorize` is Ann, who agrees; if `asks_first`, by a button. `published`, `granted`, `identified` and
    `issued` change its metadata, the claims of its tokens, and what it answers at `/token`.
    """

    def __init__(
        self, *, is_openid: bool = False, host: str = "127.0.0.1", audience: str = AUDIENCE
    ) -> None:
        self.key_number = 0
        self.is_silent = False
        self.asks_first = False
        self.trick: Trick | None = None
        self.bytes_sent = 0
        self.times_asked_for_keys = 0
        self._well_known = "openid-configuration" if is_openid else "oauth-authorization-server"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._audience = audience
        self.client_secret: str | None = None
        self.published: dict[str, Any] = {}
        self.granted: dict[str, Any] = {}
        self.identified: dict[str, Any] = {}
        self.issued: dict[str, Any] = {}
        self.asked: list[dict[str, str]] = []
        """The forms that it got at `/token`."""
        self.access_tokens: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}

    @contextmanager
    def running(self) -> Iterator["OAuthIssuer"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def rotate(self) -> None:
        self.key_number += 1

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a good token; None removes a claim."""
        claims = {
            "iss": self.url,
            "aud": self._audience,
            "sub": "ann",
            "client_id": "an-agent",
            "exp": int(time.time()) + 600,
            "scope": "openid write",
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, *, key_id: str | None = None, **changed: Any) -> str:
        headers = {"kid": key_id or f"key-{self.key_number}", "typ": "at+jwt"}
        return jwt.encode(
            self.claims(**changed), private_key(self.key_number), "RS256", headers=headers
        )

    def forged_with_the_public_key(self) -> str:
        """HS256 with a secret that everybody can read: the attack in RFC 8725."""
        key = private_key(self.key_number).public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signed = self._without_signature("HS256")
        return f"{signed}.{_encoded(hmac.digest(pem, signed.encode(), 'sha256'))}"

    def unsigned(self) -> str:
        return self._without_signature("none") + "."

    def _without_signature(self, algorithm: str) -> str:
        header = {"alg": algorithm, "kid": f"key-{self.key_number}"}
        parts = (header, self.claims())
        return ".".join(_encoded(json.dumps(part).encode()) for part in parts)

    @property
    def redirect_uri(self) -> str:
        return f"{self._audience}/sign-in/callback"

    def _authorize(self, query: str) -> str | None:
        """Where to send the browser; None if it is not sent anywhere."""
        asked = dict(parse_qsl(query))
        good = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": self.redirect_uri,
            "code_challenge_method": "S256",
        }
        if not good.items() <= asked.items():
            return None
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{self.redirect_uri}?{urlencode(answer)}"

    def _exchange(self, form: dict[str, str], authorization: str | None) -> dict[str, Any]:
        """The answer to the form at `/token`."""
        self.asked.append(form | {"authorization": authorization or ""})
        asked = self._codes.pop(form.get("code", ""), None)
        challenge = _encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if not self._is_client(form, authorization):
            return {"error": "invalid_client"}
        if asked is None or asked["code_challenge"] != challenge:
            return {"error": "invalid_grant", "error_description": "<script>no</script>"}
        if form["redirect_uri"] != self.redirect_uri:
            return {"error": "invalid_grant"}
        self.access_tokens.append(self.token(**{"client_id": CLIENT_ID} | self.granted))
        identity = {"aud": CLIENT_ID, "nonce": asked.get("nonce"), "scope": None} | self.identified
        id_token = jwt.encode(
            self.claims(**identity),
            private_key(self.key_number),
            "RS256",
            headers={"kid": f"key-{self.key_number}"},
        )
        answer = {"access_token": self.access_tokens[-1], "token_type": "Bearer"}
        return answer | {"id_token": id_token} | self.issued

    def _is_client(self, form: dict[str, str], authorization: str | None) -> bool:
        if self.client_secret is None:
            return form.get("client_id") == CLIENT_ID and "client_secret" not in form
        basic = base64.b64encode(f"{CLIENT_ID}:{self.client_secret}".encode()).decode()
        methods = self.published.get("token_endpoint_auth_methods_supported")
        if methods == ["client_secret_post"]:
            return form.get("client_secret") == self.client_secret
        return authorization == f"Basic {basic}"

    def _answer(self, path: str) -> dict[str, Any] | None:
        if self.is_silent:
            return None
        if path == f"/.well-known/{self._well_known}":
            metadata = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize?tenant=data",
                "token_endpoint": f"{self.url}/token",
                "scopes_supported": ["email", "openid", "read", "write", "approve"],
                "code_challenge_methods_supported": ["plain", "S256"],
                "authorization_response_iss_parameter_supported": True,
            }
            return metadata | self.published
        if path == "/keys":
            self.times_asked_for_keys += 1
            key = jwt.algorithms.RSAAlgorithm.to_jwk(
                private_key(self.key_number).public_key(), as_dict=True
            )
            secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}
            return {"keys": [secret, key | {"kid": f"key-{self.key_number}", "use": "sig"}]}
        return None

    def _play(self, trick: "Trick", request: BaseHTTPRequestHandler) -> None:
        headers, chunk, pause = {"Content-Length": str(10**9)}, b" " * 2**16, 0.0
        if trick == "drips":
            chunk, pause = b" ", 0.05
        elif trick == "bomb":
            chunk = gzip.compress(b" " * 2**26)
            headers = {"Content-Length": str(len(chunk)), "Content-Encoding": "gzip"}
        elif trick == "elsewhere":
            headers = {"Content-Length": "0", "Location": f"{self.url}{ELSEWHERE}{request.path}"}
        request.send_response(302 if "Location" in headers else 200)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        left = int(headers["Content-Length"])
        with suppress(OSError):  # The client has disconnected.
            while left > 0:
                request.wfile.write(chunk[:left])
                left -= len(chunk)
                self.bytes_sent += len(chunk)
                time.sleep(pause)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if issuer.trick is not None and not self.path.startswith(ELSEWHERE):
                    issuer._play(issuer.trick, self)
                    return
                if issuer.asks_first and self.path.startswith("/authorize?"):
                    self._send(200, AGREEMENT)
                elif not self._has_sent_back():
                    answer = issuer._answer(self.path.removeprefix(ELSEWHERE))
                    self._send(404 if answer is None else 200, json.dumps(answer).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if issuer.trick is not None:
                    issuer._play(issuer.trick, self)
                elif not self._has_sent_back():
                    form = dict(parse_qsl(body))
                    answer = issuer._exchange(form, self.headers["Authorization"])
                    self._send(400 if "error" in answer else 200, json.dumps(answer).encode())

            def _has_sent_back(self) -> bool:
                """True if this was a person at `/authorize`, who is sent back now."""
                parts = urlsplit(self.path)
                back = issuer._authorize(parts.query) if parts.path == "/authorize" else None
                if back is None:
                    return False
                self.send_response(302)
                self.send_header("Location", back)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return True

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
