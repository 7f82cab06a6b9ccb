"""The key that outputs are signed with: the user's own, or one that is made on this computer at the first use."""

import datetime
import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ernerf_ti.media.files import require_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate, Name

_SELF_MADE = "ernerf-ti, self-made"
"""Organization in the certificates of keys that are made here."""
_DAYS = 3650
_CLOCKS = datetime.timedelta(minutes=10)  # that the clock of whoever checks may be behind
_EC_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class SigningKey:
    """A private key and the chain of its certificates, as C2PA takes them."""

    private_key: bytes
    """PEM, PKCS #8, not encrypted."""
    certificates: bytes
    """PEM, the certificate of the key first; the root need not be among them."""
    algorithm: str
    """C2PA's name of the signature algorithm."""
    source: str
    """File or files that it was read from, for messages."""


def own_key(key: Path, certificate: Path) -> SigningKey:
    """Read the user's key.

    Args:
        key: PEM file with a private key that is not encrypted: elliptic curve P-256, P-384 or P-521, Ed25519, or RSA.
        certificate: PEM file with its certificate, followed by those up to the root, as C2PA wants them.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file holds something else.
        ImportError: the package cryptography is missing.
    """
    require_file(key, "a private key as PEM", "check --sign-key")
    require_file(certificate, "a certificate chain as PEM", "check --sign-certificate")
    return _parsed(key.read_bytes(), certificate.read_bytes(), str(key), str(certificate))


def local_key(folder: Path | None = None) -> SigningKey:
    """The key of this computer's user, made at the first use together with its certificates.

    The file is readable by its owner alone. The key of the certificate authority is forgotten as soon as it has signed
    the one certificate. Of several processes that begin at once, all take the key of the first one.

    Args:
        folder: where it is kept; None for `ernerf-ti/` in the user's folder of configurations.

    Raises:
        OSError: the folder can't be written to, or others can read the file.
        ValueError: the file holds something else.
        ImportError: the package cryptography is missing.
    """
    path = (_config_folder() if folder is None else folder) / "signing.pem"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(new_key(datetime.datetime.now(datetime.timezone.utc) - _CLOCKS))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise PermissionError(
            f"{path}: expected a key that its owner alone can read, got mode {path.stat().st_mode & 0o777:o}; "
            f"run chmod 600 {path}, or delete it if others may have read it"
        )
    content = path.read_bytes()
    return _parsed(content, content, str(path), str(path))


def new_key(begin: datetime.datetime) -> bytes:
    """PEM of a new P-256 key, its certificate and that of the authority that signed it, valid for ten years.

    C2PA takes no certificate that signed itself, so that there are two; see the C2PA specification on certificate
    profiles for the extensions.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> "Name":
        attributes = {NameOID.ORGANIZATION_NAME: _SELF_MADE, NameOID.COMMON_NAME: common}
        return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes.items()])

    def usage(*allowed: str) -> x509.KeyUsage:
        kinds = (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        )
        return x509.KeyUsage(**{kind: kind in allowed for kind in kinds})

    number = uuid.uuid4().hex[:8]  # says nothing about the user or the computer
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # (subject, its key, certificate authority?, usage)
    authority = name(f"authority {number}"), authority_key.public_key(), True, usage("key_cert_sign", "crl_sign")
    signer = name(f"signer {number}"), key.public_key(), False, usage("digital_signature")
    certificates = []
    for subject, public_key, is_authority, uses in (signer, authority):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority[0])
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=_DAYS))
            .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
            .add_extension(uses, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )
        if not is_authority:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        certificates.append(builder.sign(authority_key, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return b"".join([private, *(certificate.public_bytes(pem) for certificate in certificates)])


def _config_folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if not os.path.isabs(home):  # no HOME, and no such user in the user database
        raise FileNotFoundError("signing key: expected a home folder to keep it in, got none; set HOME")
    return Path(home) / "ernerf-ti"


def _parsed(key_pem: bytes, certificates_pem: bytes, key_path: str, certificate_path: str) -> SigningKey:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except TypeError:
        raise ValueError(
            f"{key_path}: expected a private key that is not encrypted, got an encrypted one; decrypt it, for "
            "instance with openssl pkey"
        ) from None
    except Exception as error:  # the package raises errors of several libraries
        raise ValueError(
            f"{key_path}: expected a private key as PEM, got another file ({_first_line(error)})"
        ) from None
    try:
        chain = x509.load_pem_x509_certificates(certificates_pem)
    except Exception as error:
        raise ValueError(
            f"{certificate_path}: expected a certificate chain as PEM, got another file ({_first_line(error)})"
        ) from None
    public = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if chain[0].public_key().public_bytes(*public) != key.public_key().public_bytes(*public):
        raise ValueError(
            f"{certificate_path}: expected the certificate of the key {key_path} first, got that of another key; pass "
            "the pair that belongs together"
        )
    _check_period(chain, certificate_path)
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)
    source = key_path if key_path == certificate_path else f"{key_path} and {certificate_path}"
    return SigningKey(plain, pem, _algorithm(key, key_path), source)


def _check_period(chain: "list[Certificate]", path: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    for certificate in chain:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin <= now <= end:
            state = "one that has expired" if now > end else "one that is not valid yet"
            raise ValueError(
                f"{path}: expected certificates that are valid now, got {state} ({begin:%Y-%m-%d} to {end:%Y-%m-%d}); "
                "renew it" + ("" if now > end else ", or check the clock")
            )


def _algorithm(key: "PrivateKeyTypes", path: str) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _EC_ALGORITHMS:
        return _EC_ALGORITHMS[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise ValueError(
        f"{path}: expected an elliptic curve key (P-256, P-384, P-521), Ed25519, or RSA with 2048 bits or more, got "
        f"{getattr(getattr(key, 'curve', None), 'name', type(key).__name__)}; C2PA signs with these"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
