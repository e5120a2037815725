"""Certificates that a mesh must refuse, each wrong in one way and right in all others.

    forge.py ISSUER_STATE OUT

ISSUER_STATE is the state directory of an issuer. OUT gets CASE.pem (leaf first, then its issuer) and CASE.key for
every case below; all but `foreign` are signed by the mesh's own intermediate.
"""
import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
WEB = "spiffe://mesh.test/svc/web"


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(issuer, issuer_key, uris=(WEB,), begins=-HOUR, ends=HOUR, ca=False, subject="web"):
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begins)
        .not_valid_after(NOW + ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=ca, crl_sign=ca,
                          encipher_only=False, decipher_only=False),
            critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    signer = issuer_key or key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def main():
    issuer_state, out = map(pathlib.Path, sys.argv[1:])
    issuer = x509.load_pem_x509_certificates((issuer_state / "ca/intermediate.pem").read_bytes())[0]
    issuer_key = serialization.load_pem_private_key((issuer_state / "ca/intermediate.key").read_bytes(), None)
    foreign, foreign_key = make(None, None, uris=["spiffe://mesh.test"], ca=True, subject=issuer.subject.rfc4514_string())
    cases = {
        "good": make(issuer, issuer_key),
        "foreign": make(foreign, foreign_key),
        "expired": make(issuer, issuer_key, begins=-3 * HOUR, ends=-2 * HOUR),
        "not_yet_valid": make(issuer, issuer_key, begins=2 * HOUR, ends=3 * HOUR),
        "other_service": make(issuer, issuer_key, uris=["spiffe://mesh.test/svc/other"]),
        "other_domain": make(issuer, issuer_key, uris=["spiffe://elsewhere.test/svc/web"]),
        "two_uris": make(issuer, issuer_key, uris=[WEB, "spiffe://mesh.test/svc/other"]),
        "cn_only": make(issuer, issuer_key, uris=[], subject=WEB),
        "ca_as_leaf": make(issuer, issuer_key, ca=True),
    }
    for case, (certificate, key) in cases.items():
        chain = [certificate, foreign if case == "foreign" else issuer]
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
        (out / f"{case}.pem").write_bytes(pem)
        (out / f"{case}.key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


main()
