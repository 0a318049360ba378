"""The handshake's digests: who knows the shared key, and the password.

Source: Forward protocol v1, "Handshake Messages"; Fluentd's out_forward/handshake_protocol.rb and
in_forward.rb (``check_ping``, ``generate_pong``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha512
from hmac import compare_digest

from bridge.errors import AuthenticationError
from bridge.forward.messages import Helo, Ping, Pong

_SALT_BYTES = 16


def digest(*parts: bytes) -> bytes:
    """Return the SHA-512 of all parts, hexadecimal."""
    return sha512(b"".join(parts)).hexdigest().encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAuth:
    """Whom a server takes chunks from.

    Attributes:
        shared_key: what clients must know.
        hostname: the server's name for itself. Fluentd refuses a server whose name is its own
            ``self_hostname`` (handshake_protocol.rb:71): in one pod the two need different ones.
        users: passwords by user name; empty if no user is asked for.
    """

    shared_key: str = field(repr=False)
    hostname: str
    users: Mapping[str, str] = field(default_factory=dict, repr=False)

    def helo(self) -> Helo:
        """Return a new HELO."""
        salt = secrets.token_bytes(_SALT_BYTES) if self.users else b""
        return Helo(secrets.token_bytes(_SALT_BYTES), salt)

    def check(self, helo: Helo, ping: Ping) -> None:
        """Check a client's answer.

        Args:
            helo: what the client was sent.
            ping: what it answered.

        Raises:
            AuthenticationError: the key, the user or the password is wrong.
        """
        key = self.shared_key.encode()
        proof = digest(ping.salt, ping.hostname, helo.nonce, key)
        if not compare_digest(proof, ping.digest):
            raise AuthenticationError("shared_key mismatch")
        if self.users:
            name = ping.username.decode("utf-8", "surrogateescape")
            # A user that there is not takes as long as one with another password.
            password = self.users.get(name, "").encode()
            proof = digest(helo.auth, ping.username, password)
            if not compare_digest(proof, ping.password_digest) or name not in self.users:
                raise AuthenticationError("username/password mismatch")

    def pong(self, helo: Helo, ping: Ping) -> Pong:
        """Return the answer to a PING that was right."""
        hostname = self.hostname.encode()
        proof = digest(ping.salt, hostname, helo.nonce, self.shared_key.encode())
        return Pong(accepted=True, hostname=hostname, digest=proof)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuth:
    """How a client shows who it is.

    Attributes:
        shared_key: what the server must know too.
        hostname: the client's name for itself.
        username: the user, for a server that asks for one.
        password: the user's password.
    """

    shared_key: str = field(repr=False)
    hostname: str
    username: str = ""
    password: str = field(default="", repr=False)

    def ping(self, helo: Helo) -> Ping:
        """Return the answer to a HELO.

        Args:
            helo: what the server sent.

        Raises:
            AuthenticationError: it asks for a user, and there is none.
        """
        hostname = self.hostname.encode()
        # Hexadecimal as Fluentd's: it travels in a string (handshake_protocol.rb:119).
        salt = secrets.token_hex(_SALT_BYTES).encode()
        proof = digest(salt, hostname, helo.nonce, self.shared_key.encode())
        if not helo.auth:
            return Ping(hostname, salt, proof)
        if not self.username:
            raise AuthenticationError(
                "the server asks for a user: set the user name and the password"
            )
        user = self.username.encode()
        password = digest(helo.auth, user, self.password.encode())
        return Ping(hostname, salt, proof, user, password)

    def check(self, helo: Helo, ping: Ping, pong: Pong) -> None:
        """Check that the server accepted, and that it knows the key itself.

        Args:
            helo: what the server sent first.
            ping: what it was answered.
            pong: what it answered to that.

        Raises:
            AuthenticationError: it did not, or does not; says why.
        """
        if not pong.accepted:
            raise AuthenticationError(
                f"the server refused: {pong.reason or 'it gives no reason'}; set the same shared"
                " key, user and password on both ends"
            )
        proof = digest(ping.salt, pong.hostname, helo.nonce, self.shared_key.encode())
        if not compare_digest(proof, pong.digest):
            raise AuthenticationError("shared_key mismatch: the server does not know the key")
